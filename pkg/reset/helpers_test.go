package reset

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/testx"
	"nixos-go/pkg/testx/model"
)

// machine is a file system laid out as section 3 of the design says:
//
//	top/@root  top/@home  top/@snapshots/<volume>/CLEAN …
type machine struct {
	t    testing.TB
	top  string
	plan *PlanFile
}

// newDisk mounts with noatime: looking at a volume must not change it.
func newDisk(tb testing.TB, size int64) string {
	tb.Helper()
	fs := testx.NewFilesystem(tb, size)
	fs.Remount("noatime")
	return fs.Mount
}

func newMachine(tb testing.TB, top string, volumes ...PlanFileVolume) *machine {
	tb.Helper()
	m := &machine{t: tb, top: top, plan: &PlanFile{
		Version: 1, Snapshots: DefaultSnapshots, Clean: NameClean, Mode: ModeReset, Revision: 1, Volumes: volumes,
	}}
	m.create(DefaultSnapshots)
	for _, v := range volumes {
		m.create(v.Name)
		if err := os.Mkdir(m.path(DefaultSnapshots, v.Name), 0o700); err != nil {
			tb.Fatal(err)
		}
	}
	return m
}

func (m *machine) path(parts ...string) string {
	return filepath.Join(append([]string{m.top}, parts...)...)
}

// hold opens a file that the caller closes, so that the disk can be unmounted.
func (m *machine) hold(path string) *os.File {
	m.t.Helper()
	f, err := os.Open(path)
	if err != nil {
		m.t.Fatal(err)
	}
	return f
}

func (m *machine) create(path string) {
	m.t.Helper()
	dir := m.hold(filepath.Dir(m.path(path)))
	defer dir.Close()
	if err := btrfs.Create(dir, filepath.Base(path)); err != nil {
		m.t.Fatal(err)
	}
}

// snapshot takes a snapshot from one path below the top level to another.
func (m *machine) snapshot(from, to string, readOnly bool) {
	m.t.Helper()
	src, dir := m.hold(m.path(from)), m.hold(filepath.Dir(m.path(to)))
	defer src.Close()
	defer dir.Close()
	if err := btrfs.Snapshot(src, dir, filepath.Base(to), readOnly); err != nil {
		m.t.Fatal(err)
	}
}

// takeClean makes CLEAN of every volume from the live state.
func (m *machine) takeClean() {
	m.t.Helper()
	for _, v := range m.plan.Volumes {
		m.snapshot(v.Name, filepath.Join(DefaultSnapshots, v.Name, NameClean), true)
	}
}

// sh runs a script in a volume.
func (m *machine) sh(volume, script string) {
	m.t.Helper()
	cmd := exec.Command("bash", "-euc", script)
	cmd.Dir = m.path(volume)
	if out, err := cmd.CombinedOutput(); err != nil {
		m.t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

func (m *machine) read(path string) model.Tree {
	m.t.Helper()
	tree, err := model.Read(m.path(path))
	if err != nil {
		m.t.Fatal(err)
	}
	return tree
}

// run runs the engine and fails the test if it does not succeed.
func (m *machine) run(options Options) *Report {
	m.t.Helper()
	top := m.hold(m.top)
	defer top.Close()
	report, err := Run(top, m.plan, options)
	if err != nil || report.Failed() {
		m.t.Fatalf("Run(%+v) = %v, %+v", options.Mode, err, report)
	}
	return report
}

func (m *machine) info(path string) btrfs.Info {
	m.t.Helper()
	f := m.hold(m.path(path))
	defer f.Close()
	info, err := btrfs.ReadInfo(f)
	if err != nil {
		m.t.Fatal(err)
	}
	return info
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// cleanup does what the service does after the boot.
func (m *machine) cleanup() {
	m.t.Helper()
	top := m.hold(m.top)
	defer top.Close()
	if err := Cleanup(context.Background(), top, m.plan, CleanupOptions{}); err != nil {
		m.t.Fatal(err)
	}
	if err := btrfs.Sync(top); err != nil {
		m.t.Fatal(err)
	}
}

// checkReset runs a reset of one volume and compares the new state with the model's.
func (m *machine) checkReset(volume PlanFileVolume) *Report {
	m.t.Helper()
	old := m.read(volume.Name)
	clean := m.read(filepath.Join(DefaultSnapshots, volume.Name, NameClean))
	want := model.Expect(old, clean, volume.Keep, volume.Exclude)
	report := m.run(Options{})
	if diff := model.Diff(want, m.read(volume.Name)); diff != "" {
		m.t.Fatalf("state after the reset:\n%s\nchanges:\n%s", diff, describe(report))
	}
	return report
}

func describe(r *Report) string {
	var b strings.Builder
	for _, v := range r.Volumes {
		b.WriteString(v.Name + " " + string(v.Outcome) + " " + string(v.Way) + " " + v.Error + strings.Join(v.Warnings, "; ") + "\n")
		for _, c := range v.Changes {
			b.WriteString("  " + string(c.Kind) + " " + c.Path + " [" + c.Fields.String() + "]\n")
		}
	}
	return b.String()
}
