package diff

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/nix"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/ui"
)

// option is what the lines are for (modules/settings/immutability.nix).
const option = "settings.disk.immutability.persist.paths"

// proposal is a rule, with what it would keep.
type proposal struct {
	rule  string
	unit  string
	why   string
	size  uint64
	files int64
	from  []string // the findings
}

// proposals are by rule.
type proposals map[string]*proposal

func (p proposals) add(rule, unit, why, from string, size uint64, files int64) {
	one := p[rule]
	if one == nil {
		one = &proposal{rule: rule, unit: unit, why: why}
		p[rule] = one
	}
	one.size += size
	one.files += files
	one.from = append(one.from, from)
}

// sorted gives the proposals by path; what one covers of the others is counted with it.
func (p proposals) sorted() []*proposal {
	all := make([]*proposal, 0, len(p))
	for _, one := range p {
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b *proposal) int { return comparePaths(a.rule, b.rule) })
	var list []*proposal
	for _, one := range all {
		if len(list) > 0 && below(one.rule, list[len(list)-1].rule) {
			last := list[len(list)-1]
			last.size, last.files, last.from = last.size+one.size, last.files+one.files, append(last.from, one.from...)
			continue
		}
		copied := *one
		copied.from = slices.Clone(one.from)
		list = append(list, &copied)
	}
	for _, one := range list {
		slices.SortFunc(one.from, comparePaths)
	}
	return list
}

func (t tool) suggest(c *cli.Context) error {
	r, err := newRequest(c)
	if err != nil {
		return err
	}
	for _, flag := range []string{"depth", "children", "content", "kept", "since", "show-symlinks", "all"} {
		if c.IsSet(flag) {
			return clikit.Usagef("suggest does not take --%s", flag)
		}
	}
	if err := t.env.RequireRoot("nixos-diff suggest"); err != nil {
		return err
	}
	filter, err := newFilter(r)
	if err != nil {
		return err
	}
	if filter.memory, err = t.recall(r); err != nil {
		return err
	}
	advisor, err := newAdvisor(readUnits(t.env.Host.Files))
	if err != nil {
		return err
	}
	tgt, err := t.open(c.Context, r)
	if err != nil {
		return err
	}
	defer tgt.close()
	s := &suggester{advisor: advisor, keep: proposals{}, lose: proposals{}}
	for _, volume := range tgt.volumes {
		if volume.Err != nil {
			continue
		}
		s.looker = &looker{ctx: c.Context, request: r, filter: filter, volume: volume, view: &view{}, linked: map[inode]bool{}}
		s.last = filter.memory.volume(r.question(), volume.Volume.Name)
		if err := s.look(); err != nil {
			return err
		}
	}
	if r.json {
		err = t.env.UI.JSON(s.report())
	} else {
		err = t.showSuggestions(s)
	}
	if err == nil && tgt.failed() {
		err = clikit.ErrReported
	}
	return err
}

// suggester turns what would be lost into rules.
type suggester struct {
	*looker

	advisor *advisor
	keep    proposals
	lose    proposals
}

func (s *suggester) look() error {
	for _, c := range s.volume.Plan.Changes {
		if c.Kind != reset.KindAdded && c.Kind != reset.KindModified && c.Kind != reset.KindType {
			continue // nothing of it is lost, or only an owner, mode or time
		}
		if !s.filter.leadsTo(absolutePath(s.volume, c.Path)) {
			continue
		}
		e, err := s.volume.Live.Stat(c.Path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := s.consider(e, s.filter.recent && s.last.knows(c.Path, c.Kind)); err != nil {
			return err
		}
	}
	return nil
}

// consider proposes what keeps an entry: in a directory of which parts are known, one
// rule for each of its entries.
func (s *suggester) consider(e *reset.Entry, known bool) error {
	if err := context.Cause(s.ctx); err != nil {
		return err
	}
	abs := absolutePath(s.volume, e.Path)
	if known && s.last.isNew(s.volume, e) {
		known = false
	}
	switch {
	case s.filter.ignores(abs), !s.filter.leadsTo(abs), s.hides(e):
		return nil
	case e.IsDir() && (known || s.advisor.goesOn(abs) || !s.filter.selects(abs)):
		return s.considerAll(e, known)
	case known || !s.filter.selects(abs):
		return nil
	}
	size, files, err := s.measure(e)
	if err != nil {
		return err
	}
	if e.IsDir() && files == 0 {
		return nil // nothing in it would be lost
	}
	advice := s.advisor.about(abs)
	rule, ok := ruleFor(abs)
	switch {
	case isPrivateLink(abs, e):
		s.lose.add(abs, "", "systemd makes this symlink for a dynamic user", abs, size, files)
	case advice == nil && !ok:
		s.lose.add(abs, "", "no rule can write this name", abs, size, files)
	case advice == nil:
		s.keep.add(rule, "", "", abs, size, files)
	case advice.lost:
		s.lose.add(advice.rule, advice.unit, advice.why, abs, size, files)
	default:
		s.keep.add(advice.rule, s.advisor.unitOf(abs), advice.why, abs, size, files)
	}
	return nil
}

func (s *suggester) considerAll(e *reset.Entry, known bool) error {
	var entries []*reset.Entry
	err := s.volume.Live.Walk(e.Path, func(below *reset.Entry) error {
		if below.Path == e.Path {
			return nil
		}
		entries = append(entries, below)
		return fs.SkipDir
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, below := range entries {
		if err := s.consider(below, known); err != nil {
			return err
		}
	}
	return nil
}

// measure counts the files of an entry, without the symlinks that the configuration
// makes.
func (s *suggester) measure(e *reset.Entry) (size uint64, files int64, err error) {
	err = s.volume.Live.Walk(e.Path, func(below *reset.Entry) error {
		if s.walked++; s.walked%1024 == 0 {
			if err := context.Cause(s.ctx); err != nil {
				return err
			}
		}
		if !below.IsDir() && !s.hides(below) {
			size += s.size(below)
			files++
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return size, files, err
}

// isPrivateLink tells whether a path is the symlink that systemd makes to the state of a
// unit with a dynamic user (systemd.exec(5), StateDirectory=).
func isPrivateLink(abs string, e *reset.Entry) bool {
	dir, name := path.Split(abs)
	return slices.Contains([]string{"/var/lib/", "/var/cache/", "/var/log/"}, dir) && e.Target == "private/"+name
}

// ruleFor is the rule that keeps a path: in a home the same path in all of them, and
// `*` for bytes that no configuration can write. There is none for a name of nothing
// else, since it would keep all the others too.
func ruleFor(abs string) (rule string, ok bool) {
	components := strings.Split(abs, "/")
	for i, name := range components {
		if i == 2 && components[1] == "home" && len(components) > 3 {
			components[i] = "*"
			continue
		}
		components[i] = strings.ToValidUTF8(name, "*")
		if components[i] != name && strings.Trim(components[i], "*") == "" {
			return "", false
		}
	}
	return strings.Join(components, "/"), true
}

// group is what the lines are sorted by.
type group struct {
	title string
	list  []*proposal
}

// groups sorts proposals: by unit, then what is known otherwise, then the rest.
func groups(list []*proposal) []group {
	byUnit := map[string][]*proposal{}
	var known, homes, rest []*proposal
	for _, p := range list {
		switch {
		case p.unit != "":
			byUnit[p.unit] = append(byUnit[p.unit], p)
		case p.why != "":
			known = append(known, p)
		case below(p.rule, "/home"):
			homes = append(homes, p)
		default:
			rest = append(rest, p)
		}
	}
	var out []group
	for _, unit := range slices.Sorted(maps.Keys(byUnit)) {
		out = append(out, group{unit, byUnit[unit]})
	}
	for _, g := range []group{
		{"what many NixOS systems keep", known},
		{"in homes", homes},
		{"nothing is known of the rest", rest},
	} {
		if len(g.list) > 0 {
			out = append(out, g)
		}
	}
	return out
}

// nixLines are the proposals as the configuration writes them.
func nixLines(keep, lose []*proposal) string {
	var b strings.Builder
	if len(keep) > 0 {
		fmt.Fprintf(&b, "%s = [\n", option)
		for _, g := range groups(keep) {
			fmt.Fprintf(&b, "  # %s\n", comment(g.title))
			for _, p := range g.list {
				fmt.Fprintf(&b, "  %s # %s\n", nix.StringLiteral(p.rule), p.note())
			}
		}
		b.WriteString("];\n")
	}
	if len(lose) > 0 {
		b.WriteString("# Left out:\n")
		for _, p := range lose {
			fmt.Fprintf(&b, "#   %s: %s\n", comment(p.rule), p.note())
		}
	}
	return b.String()
}

// note is what stands beside a rule.
func (p *proposal) note() string {
	size := fmt.Sprintf("%s, %s", ui.Count(p.files, "file"), ui.Size(int64(p.size)))
	if p.why == "" {
		return size
	}
	return comment(p.why) + "; " + size
}

// comment is text that cannot leave a comment.
func comment(text string) string { return ui.Printable(text) }

func (t tool) showSuggestions(s *suggester) error {
	keep, lose := s.keep.sorted(), s.lose.sorted()
	if len(keep) == 0 {
		t.env.UI.Donef("nothing that is worth keeping would be lost")
	}
	if len(keep)+len(lose) == 0 {
		return nil
	}
	if err := t.env.UI.Print(nixLines(keep, lose)); err != nil {
		return err
	}
	if len(keep) > 0 {
		t.env.UI.Hintf("copy the lines you want into the host's file below /etc/nixos/hosts and run nixos-update")
	}
	return nil
}

// suggestReport is the JSON of suggest.
type suggestReport struct {
	Version int              `json:"version"`
	Option  string           `json:"option"`
	Keep    []proposalReport `json:"keep"`
	LeftOut []proposalReport `json:"leftOut"`
	Nix     string           `json:"nix"`
}

type proposalReport struct {
	Rule     string    `json:"rule"`
	Unit     string    `json:"unit,omitempty"`
	Why      string    `json:"why,omitempty"`
	Size     uint64    `json:"size"`
	Files    int64     `json:"files"`
	Findings []ui.Path `json:"findings"`
}

func (s *suggester) report() suggestReport {
	keep, lose := s.keep.sorted(), s.lose.sorted()
	return suggestReport{reportVersion, option, proposalReports(keep), proposalReports(lose), nixLines(keep, lose)}
}

func proposalReports(list []*proposal) []proposalReport {
	out := make([]proposalReport, 0, len(list))
	for _, p := range list {
		one := proposalReport{Rule: p.rule, Unit: p.unit, Why: p.why, Size: p.size, Files: p.files, Findings: []ui.Path{}}
		for _, from := range p.from {
			one.Findings = append(one.Findings, ui.JSONPath(from))
		}
		out = append(out, one)
	}
	return out
}
