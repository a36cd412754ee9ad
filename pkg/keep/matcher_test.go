package keep

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func mustSet(tb testing.TB, keep, exclude []string) Set {
	tb.Helper()

	s, err := NewSet(keep, exclude)
	if err != nil {
		tb.Fatalf("NewSet(%q, %q) = %v, want no error", keep, exclude, err)
	}

	return s
}

func TestKept(t *testing.T) {
	s := mustSet(t,
		[]string{"/etc/ssh", "/*/.config/kde*", "/*/.mozilla", "/bob/.mozilla/x/deep", "/tie", "/*a*b*c"},
		[]string{"/*/.mozilla/*/Cache", "/bob/.mozilla/x", "/tie", "/etc"})
	m := NewMatcher(s)

	kept := []string{
		"/etc/ssh", "/etc/ssh/a/b", "/alice/.config/kdeglobals", "/alice/.config/kde", "/alice/.config/kde4/x",
		"/alice/.mozilla", "/alice/.mozilla/x/Cache2", "/alice/.mozilla/Cache", "/bob/.mozilla/x/deep/y",
		"/tie/x", "/abc", "/xxaxbxbxc", "//etc//ssh/", "/\xffabc",
	}
	for _, path := range kept {
		if !m.Kept(path) {
			t.Errorf("Kept(%q) = false, want true", path)
		}
	}

	wiped := []string{
		"/", "", "/etc", "/etc/sshd", "/etc/ss", "/alice", "/alice/.config", "/alice/.config/kd", "/.config/kde",
		"/alice/.mozilla/x/Cache", "/alice/.mozilla/x/Cache/y/z", "/bob/.mozilla/x", "/bob/.mozilla/x/y",
		"/a/alice/.mozilla", "/acb", "/.boot-ready", "/.immutability-trash/x",
	}
	for _, path := range wiped {
		if m.Kept(path) {
			t.Errorf("Kept(%q) = true, want false", path)
		}
	}
}

func TestReservedNames(t *testing.T) {
	m := NewMatcher(mustSet(t, []string{"/*", "/.*/x", "/.b*/*"}, nil))

	for _, name := range []string{ReadyName, TrashName} {
		s := m.Root().Step(name)
		if s.Kept() || s.MayKeepBelow() || s.Step("x").Kept() {
			t.Errorf("Root().Step(%q) is kept or may keep below, want neither", name)
		}

		if !m.Root().Step("a").Step(name).Kept() {
			t.Errorf("Kept(/a/%s) = false, want true: the name is reserved in the root alone", name)
		}
	}

	// A rule that no constructor of Set lets through has no effect either.
	r, err := ParseRule("/" + ReadyName)
	if err != nil {
		t.Fatal(err)
	}

	if m := NewMatcher(Set{Keep: []Rule{r}}); m.Root().MayKeepBelow() || m.Kept("/"+ReadyName) {
		t.Errorf("a rule that names %s has an effect, want none", ReadyName)
	}
}

func TestNoSets(t *testing.T) {
	s := NewMatcher().Root()
	if s.Kept() || s.MayKeepBelow() || s.MayWipeBelow() || s.ExcludeBelow() || s.Step("a").Kept() {
		t.Error("a matcher of no sets keeps something, want nothing")
	}

	if names, exhaustive := s.NextLiterals(Keeps | Excludes); len(names) != 0 || !exhaustive {
		t.Errorf("NextLiterals = %q, %v, want none, true", names, exhaustive)
	}
}

func TestNextLiterals(t *testing.T) {
	m := NewMatcher(
		mustSet(t, []string{"/b/x", "/a", "/a/k/z", "/*/star"}, []string{"/a/k", "/c/d", "/a/*x/y"}),
		mustSet(t, []string{"/a/u", "/d"}, nil),
	)

	tests := []struct {
		path       string
		which      Which
		want       []string
		exhaustive bool
	}{
		{"/", Keeps, []string{"a", "b", "d"}, false},
		{"/", Excludes, []string{"a", "c"}, true},
		{"/", Keeps | Excludes, []string{"a", "b", "c", "d"}, false},
		{"/a", Keeps, []string{"k", "star", "u"}, true},
		{"/a", Excludes, []string{"k"}, false},
		{"/a/k", Keeps, []string{"z"}, true},
		{"/a/k", Excludes, nil, true},
		{"/a/kx", Excludes, []string{"y"}, true},
		{"/b", Keeps, []string{"star", "x"}, true},
		{"/nothing", Keeps | Excludes, []string{"star"}, true},
		{"/nothing/here", Keeps | Excludes, nil, true},
	}

	for _, tt := range tests {
		s := m.Root()
		for name := range strings.SplitSeq(strings.Trim(tt.path, "/"), "/") {
			if name != "" {
				s = s.Step(name)
			}
		}

		names, exhaustive := s.NextLiterals(tt.which)
		if !slices.Equal(names, tt.want) || exhaustive != tt.exhaustive {
			t.Errorf("NextLiterals(%q, %b) = %q, %v, want %q, %v", tt.path, tt.which, names, exhaustive, tt.want, tt.exhaustive)
		}
	}
}

// The naive matcher: every rule, component by component, with a recursive
// glob.

func naiveGlob(pattern, name string) bool {
	switch {
	case pattern == "":
		return name == ""
	case pattern[0] == '*':
		return naiveGlob(pattern[1:], name) || name != "" && naiveGlob(pattern, name[1:])
	default:
		return name != "" && pattern[0] == name[0] && naiveGlob(pattern[1:], name[1:])
	}
}

func naiveMatch(rule string, path []string) (length int, ok bool) {
	components := strings.Split(rule, "/")[1:]
	if len(components) > len(path) {
		return 0, false
	}

	for i, c := range components {
		if !naiveGlob(c, path[i]) {
			return 0, false
		}
	}

	return len(components), true
}

type naiveSet struct{ keep, exclude []string }

func (s naiveSet) kept(path []string) bool {
	if len(path) > 0 && (path[0] == ".boot-ready" || path[0] == ".immutability-trash") {
		return false
	}

	longestKeep, longestExclude := 0, 0

	for _, rule := range s.keep {
		if n, ok := naiveMatch(rule, path); ok {
			longestKeep = max(longestKeep, n)
		}
	}

	for _, rule := range s.exclude {
		if n, ok := naiveMatch(rule, path); ok {
			longestExclude = max(longestExclude, n)
		}
	}

	return longestKeep > 0 && longestKeep >= longestExclude
}

func naiveKept(sets []naiveSet, path []string) bool {
	return slices.ContainsFunc(sets, func(s naiveSet) bool { return s.kept(path) })
}

var (
	componentGen = rapid.SampledFrom([]string{
		"a", "b", "ab", "aab", "*", "a*", "*b", "a*b", "*a*", "*a*b*", "a*a", "\xff", "\xff*", "\n", ".boot-ready*", ".*",
	})
	nameGen = rapid.SampledFrom([]string{
		"a", "b", "ab", "aab", "aba", "abab", "aa", "c", "\xff", "\xffb", "\n", ".boot-ready", ".immutability-trash", ".boot-ready2",
	})
	rulesGen = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
		return "/" + strings.Join(rapid.SliceOfN(componentGen, 1, 4).Draw(t, "components"), "/")
	}), 0, 5)
	setGen = rapid.Custom(func(t *rapid.T) naiveSet {
		return naiveSet{keep: rulesGen.Draw(t, "keep"), exclude: rulesGen.Draw(t, "exclude")}
	})
)

// TestMatcherProperty holds Matcher and State against the naive matcher, for
// one set and for unions.
func TestMatcherProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		naive := rapid.SliceOfN(setGen, 1, 3).Draw(t, "sets")
		path := rapid.SliceOfN(nameGen, 0, 5).Draw(t, "path")

		sets := make([]Set, 0, len(naive))

		for _, n := range naive {
			s, err := NewSet(n.keep, n.exclude)
			if err != nil {
				t.Skip(err) // names a reserved entry
			}

			sets = append(sets, s)
		}

		m := NewMatcher(sets...)
		states := make([]State, 1, len(path)+1)
		states[0] = m.Root()

		for i, name := range path {
			states = append(states, states[i].Step(name))
		}

		for i, s := range states {
			checkState(t, m, s, naive, path[:i])
		}

		i := rapid.IntRange(0, len(path)).Draw(t, "place to look below")
		checkBelow(t, states[i], naive, path[:i])
	})
}

func checkState(t *rapid.T, m *Matcher, s State, naive []naiveSet, path []string) {
	kept := naiveKept(naive, path)
	keepsBelow := slices.ContainsFunc(naive, func(n naiveSet) bool { return goesOn(n.keep, nil, path) })
	excludesBelow := slices.ContainsFunc(naive, func(n naiveSet) bool { return goesOn(n.exclude, n.keep, path) })

	if got := s.Kept(); got != kept {
		t.Fatalf("State(%q).Kept() = %v, want %v", path, got, kept)
	}

	if got := m.Kept(joinPath(path)); got != kept {
		t.Fatalf("Kept(%q) = %v, want %v", path, got, kept)
	}

	if got, want := s.MayKeepBelow(), !kept && keepsBelow; got != want {
		t.Fatalf("State(%q).MayKeepBelow() = %v, want %v", path, got, want)
	}

	if got := s.ExcludeBelow(); got != excludesBelow {
		t.Fatalf("State(%q).ExcludeBelow() = %v, want %v", path, got, excludesBelow)
	}

	// In a union every set that keeps the path must have such an exclude.
	mayWipe := kept && !slices.ContainsFunc(naive, func(n naiveSet) bool {
		return n.kept(path) && !goesOn(n.exclude, n.keep, path)
	})
	if got := s.MayWipeBelow(); got != mayWipe {
		t.Fatalf("State(%q).MayWipeBelow() = %v, want %v", path, got, mayWipe)
	}
}

// goesOn tells whether a rule, other than those a keep rule of the same text
// makes void, is longer than path and its beginning matches it.
func goesOn(rules, void, path []string) bool {
	if len(path) > 0 && (path[0] == ".boot-ready" || path[0] == ".immutability-trash") {
		return false
	}

	return slices.ContainsFunc(rules, func(rule string) bool {
		components := strings.Split(rule, "/")[1:]
		if len(components) <= len(path) || slices.Contains(void, rule) {
			return false
		}

		_, ok := naiveMatch("/"+strings.Join(components[:len(path)], "/"), path)

		return ok || len(path) == 0
	})
}

// checkBelow looks at everything below path, made of some names, and checks
// that no decision changes where the state said it cannot.
func checkBelow(t *rapid.T, s State, naive []naiveSet, path []string) {
	names := []string{"a", "b", "ab", "aab", "aba", "c", "\n", "\xff", ".boot-ready", ".boot-ready2"}
	here := naiveKept(naive, path)
	literals, exhaustive := s.NextLiterals(Keeps | Excludes)

	for _, below := range descendants(path, names, 3) {
		kept := naiveKept(naive, below)

		if kept && !here && !s.MayKeepBelow() {
			t.Fatalf("State(%q).MayKeepBelow() = false, but %q is kept", path, below)
		}

		if !kept && here && !s.MayWipeBelow() {
			t.Fatalf("State(%q).MayWipeBelow() = false, but %q is not kept", path, below)
		}

		if kept != here && exhaustive && !slices.Contains(literals, below[len(path)]) {
			t.Fatalf("State(%q).NextLiterals() = %q, all, but the decision changes at %q", path, literals, below)
		}
	}
}

// descendants returns all paths down to the given depth below path.
func descendants(path, names []string, depth int) [][]string {
	if depth == 0 {
		return nil
	}

	var below [][]string

	for _, name := range names {
		p := append(slices.Clone(path), name)
		below = append(append(below, p), descendants(p, names, depth-1)...)
	}

	return below
}

// FuzzGlob holds the glob against the recursive one.
func FuzzGlob(f *testing.F) {
	for _, seed := range [][2]string{
		{"*", ""}, {"a*", "a"}, {"*a*b*", "xxaxxbxx"}, {"a*a", "a"}, {"*ab", "abab"}, {"a*b*c*d", "abcbcd"}, {"", ""}, {"\xff*", "\xff"},
	} {
		f.Add(seed[0], seed[1])
	}

	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(pattern) > 12 || len(name) > 16 {
			return // the recursive one is exponential
		}

		if got, want := matchComponent(pattern, name), naiveGlob(pattern, name); got != want {
			t.Errorf("matchComponent(%q, %q) = %v, want %v", pattern, name, got, want)
		}
	})
}

// FuzzMatcher holds the matcher against the naive one for any bytes.
func FuzzMatcher(f *testing.F) {
	f.Add("/a/*", "/a/b*c", "/a/bc/d")
	f.Add("/*/*", "/x", "/x/y/z")
	f.Add("/*", "/.boot*", "/.boot-ready/x")

	f.Fuzz(func(t *testing.T, keep, exclude, path string) {
		if len(keep)+len(exclude)+len(path) > 60 {
			return
		}

		s, err := NewSet([]string{keep}, []string{exclude})
		if err != nil {
			return
		}

		k, x := s.Strings()

		var components []string

		for c := range strings.SplitSeq(path, "/") {
			if c != "" {
				components = append(components, c)
			}
		}

		if got, want := NewMatcher(s).Kept(path), (naiveSet{keep: k, exclude: x}).kept(components); got != want {
			t.Errorf("keep %q, exclude %q: Kept(%q) = %v, want %v", k, x, path, got, want)
		}
	})
}

// benchmarkSet is about what a workstation has: mostly literals, some
// patterns, some excludes.
func benchmarkSet(b *testing.B) Set {
	b.Helper()

	const apps = 60

	keep := make([]string, 0, 2*apps+4)
	keep = append(keep, "/*/Documents", "/*/.mozilla", "/*/.config/kde*", "/*/.ssh")
	exclude := []string{"/*/.mozilla/*/Cache", "/*/.config/app1/*/Cache"}

	for i := range apps {
		keep = append(keep, fmt.Sprintf("/*/.config/app%d", i), fmt.Sprintf("/*/.local/share/app%d", i))
	}

	return mustSet(b, keep, exclude)
}

func BenchmarkStep(b *testing.B) {
	one := NewMatcher(benchmarkSet(b))
	union := NewMatcher(benchmarkSet(b), mustSet(b, []string{"/*/Pictures"}, nil))

	home := func(m *Matcher) State { return m.Root().Step("alice") }

	for _, bench := range []struct {
		name string
		from State
		step string
	}{
		{"hit", home(one), ".config"},
		{"pattern", home(one).Step(".config"), "kdeglobals"},
		{"miss", home(one), "Downloads"},
		{"done", home(one).Step("Documents"), "letter.odt"},
		{"exclude", home(one).Step(".mozilla"), "profile"},
		{"union", home(union), ".config"},
		{"unionDone", home(union).Step("Documents"), "letter.odt"},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()

			for b.Loop() {
				bench.from.Step(bench.step)
			}
		})
	}
}

func BenchmarkGlobWorstCase(b *testing.B) {
	// Each piece is looked for over the whole rest of the name.
	g := newGlob("*" + strings.Repeat("a", 100) + "b*" + strings.Repeat("a*", 50) + "c*")
	name := strings.Repeat("a", 255)

	for b.Loop() {
		g.match(name)
	}
}
