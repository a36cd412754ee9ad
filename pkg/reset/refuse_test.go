package reset

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/testx"
)

// A refusal is something wrong with @home. It has to stay as it is, with all of its
// snapshots, while @root is reset. The cure that the message names has to cure it.
type refusal struct {
	name  string
	mode  Mode
	spoil func(b *box)
	want  []string // in the message
	cure  func(b *box)
}

func (r refusal) run(t *testing.T) {
	b := newBox(t)
	r.spoil(b)
	before := b.everything()
	wantRoot := b.expect("@root")
	report, err := b.try(Options{Mode: r.mode})
	if err != nil || !report.Failed() || report.Error != "" {
		t.Fatalf("Run() = %v, report %+v, want a failed volume alone", err, report)
	}
	home, root := b.result(report, "@home"), b.result(report, "@root")
	if home.Outcome != OutcomeFailed {
		t.Errorf("outcome of @home = %q, want %q", home.Outcome, OutcomeFailed)
	}
	for _, want := range r.want {
		if !strings.Contains(home.Error, want) {
			t.Errorf("message %q does not contain %q", home.Error, want)
		}
	}
	ignore := []string{"@root", "@snapshots/@root"}
	want, got := without(before, ignore...), without(b.everything(), ignore...)
	// The exchange of @root changes the directory that holds it.
	top := want[""]
	top.AnyMTime = true
	want[""] = top
	b.same("everything but @root", want, got)
	if root.Outcome == OutcomeFailed || root.Error != "" {
		t.Fatalf("outcome of @root = %q, error %q, want it done", root.Outcome, root.Error)
	}
	if root.Outcome == OutcomeReset {
		b.same("@root", wantRoot, b.read("@root"))
	}
	if r.cure == nil {
		return
	}
	r.cure(b)
	wantHome := b.expect("@home")
	report = b.run(Options{Mode: r.mode})
	if home := b.result(report, "@home"); home.Outcome == OutcomeReset {
		b.same("@home, cured", wantHome, b.read("@home"))
	}
}

func runRefusals(t *testing.T, refusals []refusal) {
	t.Helper()
	for _, r := range refusals {
		t.Run(r.name, r.run)
	}
}

// standsThere puts something else in the place of a subvolume, and gives what puts
// it back.
func standsThere(path, script string) (spoil, cure func(b *box)) {
	saved := filepath.Join(filepath.Dir(path), "saved")
	spoil = func(b *box) {
		b.mv(path, saved)
		b.sh("", strings.ReplaceAll(script, "THERE", path))
	}
	cure = func(b *box) {
		b.mv(path, filepath.Join(filepath.Dir(path), "moved-away"))
		b.mv(saved, path)
	}
	return spoil, cure
}

func missing(name string, mode Mode, path string, want ...string) refusal {
	spoil, cure := standsThere(path, "")
	return refusal{name: name, mode: mode, spoil: spoil, cure: cure, want: want}
}

const plainDirectory = `mkdir -p THERE/alice/Documents; echo precious > THERE/alice/Documents/file`

func TestRefuseWhatIsNoSnapshot(t *testing.T) {
	var refusals []refusal
	add := func(name, kind, script string) {
		spoil, cure := standsThere(snapshotOf("@home", name), script)
		refusals = append(refusals, refusal{
			name: name + " is " + kind, spoil: spoil, cure: cure,
			want: []string{`"` + name + `" is`, "not a subvolume", "move it away"},
		})
	}
	for _, name := range []string{NameClean, NamePrevious, NamePenultimate, NameCurrent, NameNext, NameReplaced, agedPrefix + "x"} {
		add(name, "a directory", plainDirectory)
	}
	for _, name := range []string{NamePrevious, NameNext, agedPrefix + "x"} {
		add(name, "a file", `echo > THERE`)
		add(name, "a fifo", `mkfifo THERE`)
		add(name, "a symlink to a subvolume", `ln -s ../../@other THERE`)
	}
	runRefusals(t, refusals)
}

func TestRefuseWhatIsNoVolume(t *testing.T) {
	dir, cureDir := standsThere("@home", plainDirectory)
	file, cureFile := standsThere("@home", `echo > THERE`)
	link, cureLink := standsThere("@home", `ln -s @other THERE`)
	folder, cureFolder := standsThere("@snapshots/@home", `ln -s @root THERE`)
	runRefusals(t, []refusal{
		{name: "directory", spoil: dir, cure: cureDir, want: []string{`"@home" is a plain directory`, "btrfs subvolume"}},
		{name: "file", spoil: file, cure: cureFile, want: []string{"@home", "not a directory"}},
		{name: "symlink to a subvolume", spoil: link, cure: cureLink, want: []string{"@home", "not a"}},
		missing("volume missing", ModeReset, "@home", "@home", "no such file"),
		{name: "folder of snapshots is a symlink", spoil: folder, cure: cureFolder, want: []string{"@snapshots/@home"}},
		missing("folder of snapshots missing", ModeReset, "@snapshots/@home", "nixos-snapshot init"),
		missing("CLEAN missing", ModeReset, "@snapshots/@home/CLEAN", "no CLEAN", "nixos-snapshot init"),
		missing("nothing to restore", ModeRestorePrevious, "@snapshots/@home/PREVIOUS", "no PREVIOUS to restore"),
		missing("nothing older to restore", ModeRestorePenultimate, "@snapshots/@home/PENULTIMATE", "no PENULTIMATE to restore"),
	})
}

func TestRefuseRules(t *testing.T) {
	runRefusals(t, []refusal{
		{
			name: "nothing kept", spoil: func(b *box) { b.spec("@home").Keep = nil },
			cure: func(b *box) { b.spec("@home").KeepNothing = true }, want: []string{"keep nothing", `"keepNothing": true`},
		},
		{
			name: "invalid", spoil: func(b *box) { b.spec("@home").Keep = []string{"/a/../b"} },
			cure: func(b *box) { b.spec("@home").Keep = []string{"/b"} }, want: []string{"/a/../b"},
		},
	})
}

func TestRefuseLockedRoots(t *testing.T) {
	var refusals []refusal
	for _, flag := range []struct {
		name string
		bits uint32
	}{{"immutable", btrfs.FlagImmutable}, {"append-only", btrfs.FlagAppend}} {
		for _, path := range []string{"@home", snapshotOf("@home", NameClean), snapshotOf("@home", NamePrevious)} {
			for _, mode := range []Mode{ModeReset, ModeSnapshotOnly, ModeRestorePrevious} {
				set := func(flags uint32) func(b *box) {
					return func(b *box) {
						readOnly := b.info(path).ReadOnly
						b.setReadOnly(path, false)
						b.setFlags(path, flags)
						b.setReadOnly(path, readOnly)
					}
				}
				refusals = append(refusals, refusal{
					name: fmt.Sprintf("%s is %s, %s", path, flag.name, mode), mode: mode, spoil: set(flag.bits), cure: set(0),
					want: []string{filepath.Base(path), "immutable or append-only", "chattr -i -a"},
				})
			}
		}
	}
	runRefusals(t, refusals)
}

func TestRefuseReadOnlyVolume(t *testing.T) {
	runRefusals(t, []refusal{{
		name:  "read-only",
		spoil: func(b *box) { b.setReadOnly("@home", true) },
		cure:  func(b *box) { b.setReadOnly("@home", false) },
		want:  []string{"read-only", "btrfs property set"},
	}})
}

func TestRefuseDefaultSubvolume(t *testing.T) {
	set := func(path string) func(b *box) {
		return func(b *box) {
			top := b.hold(b.top)
			defer top.Close()
			if err := btrfs.SetDefault(top, b.info(path).ID); err != nil {
				b.t.Fatal(err)
			}
		}
	}
	runRefusals(t, []refusal{{
		name: "live", spoil: set("@home"), cure: set(""), want: []string{"default subvolume", "btrfs subvolume set-default 5"},
	}})
}

func TestRefuseSwapFile(t *testing.T) {
	on := func(b *box) {
		swap := b.path("@home/alice/Documents/swap")
		b.sh("@home", `touch alice/Documents/swap; chattr +C alice/Documents/swap; fallocate -l 2M alice/Documents/swap; chmod 600 alice/Documents/swap; mkswap -q alice/Documents/swap`)
		b.syncTop()
		out, err := exec.Command("swapon", swap).CombinedOutput()
		if err != nil {
			testx.Unavailable(b.t, fmt.Sprintf("swapon: %v: %s", err, out))
		}
		b.t.Cleanup(func() { _ = exec.Command("swapoff", swap).Run() }) // the cure has done it
	}
	off := func(b *box) { command(b.t, "swapoff", b.path("@home/alice/Documents/swap")) }
	for _, mode := range []Mode{ModeReset, ModeSnapshotOnly} {
		runRefusals(t, []refusal{{
			name: string(mode), mode: mode, spoil: on, cure: off, want: []string{"swap file", "swapoff"},
		}})
	}
}
