package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/testx"
	"nixos-go/pkg/testx/model"
)

// box is a machine of its own, in a temporary folder.
type box struct {
	machine

	t              *testing.T
	stdout, stderr bytes.Buffer
}

// newBox makes a machine that has booted, with an empty kernel command line, no
// hibernated image and no plan.
func newBox(t *testing.T) *box {
	t.Helper()
	dir := t.TempDir()
	b := &box{t: t}
	b.machine = machine{
		stdout: &b.stdout, stderr: &b.stderr,
		plan: filepath.Join(dir, "plan.json"), report: filepath.Join(dir, "run/initrd-reset/report.json"),
		commandLine: filepath.Join(dir, "cmdline"), mountInfo: "/proc/self/mountinfo",
		initrdRelease: filepath.Join(dir, "initrd-release"), kernelLog: filepath.Join(dir, "kmsg"),
		hibernateLocation: filepath.Join(dir, "HibernateLocation"), devices: filepath.Join(dir, "dev"),
	}
	b.write(b.commandLine, "quiet splash\n")
	b.write(b.kernelLog, "")
	return b
}

// boots makes the machine one that boots.
func (b *box) boots() { b.write(b.initrdRelease, "ID=nixos\n") }

// run runs the program, called by a name.
func (b *box) run(args ...string) int {
	b.stdout.Reset()
	b.stderr.Reset()
	return run(args, b.machine)
}

// want runs the program and checks the exit status and a part of what it says.
func (b *box) want(status int, says string, args ...string) {
	b.t.Helper()
	got := b.run(args...)
	if got != status || !strings.Contains(b.stderr.String(), says) {
		b.t.Errorf("%q = status %d and\n%s\nwant %d and %q", args, got, b.stderr.String(), status, says)
	}
}

func (b *box) write(path, text string) {
	b.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) read(path string) string {
	b.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		b.t.Fatal(err)
	}
	return string(text)
}

// wipedPath is where the program puts the list of what it wiped.
func (b *box) wipedPath() string { return filepath.Join(filepath.Dir(b.report), "wiped.jsonl") }

// reportFile is the contract of the report: section 7 of the design.
type reportFile struct {
	Version      int            `json:"version"`
	Mode         string         `json:"mode"`
	ModeFrom     string         `json:"modeFrom"`
	DryRun       bool           `json:"dryRun"`
	Started      time.Time      `json:"started"`
	Milliseconds float64        `json:"milliseconds"`
	Phases       []phase        `json:"phases"`
	Warnings     []string       `json:"warnings"`
	Error        string         `json:"error"`
	Volumes      []volumeReport `json:"volumes"`
	Changes      []struct {
		Volume  string   `json:"volume"`
		Changes []change `json:"changes"`
	} `json:"changes"` // on standard output alone
}

type phase struct {
	Name         string  `json:"name"`
	Milliseconds float64 `json:"milliseconds"`
}

type volumeReport struct {
	Name        string   `json:"name"`
	MountPoint  string   `json:"mountPoint"`
	Outcome     string   `json:"outcome"`
	Way         string   `json:"way"`
	Wiped       int      `json:"wiped"`
	ChangedBack int      `json:"changedBack"`
	BroughtBack int      `json:"broughtBack"`
	Moved       int      `json:"moved"`
	Phases      []phase  `json:"phases"`
	Warnings    []string `json:"warnings"`
	Error       string   `json:"error"`
}

type change struct {
	Volume     string   `json:"volume"`
	Path       string   `json:"path"`
	PathBase64 string   `json:"pathBase64"`
	Kind       string   `json:"kind"`
	Type       string   `json:"type"`
	Fields     []string `json:"fields"`
	Size       uint64   `json:"size"`
}

// decode reads JSON that has no other fields.
func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var out T
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&out); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return out
}

func (b *box) readReport() reportFile {
	b.t.Helper()
	return decode[reportFile](b.t, b.read(b.report))
}

// forget removes the report of an earlier run.
func (b *box) forget() {
	b.t.Helper()
	if err := os.RemoveAll(filepath.Dir(b.report)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) noReport() {
	b.t.Helper()
	if fileExists(b.report) {
		b.t.Errorf("there is a report:\n%s", b.read(b.report))
	}
}

// disk is a file system with two volumes, mounted at top:
//
//	@root  @home  @snapshots/@root/CLEAN  @snapshots/@home/CLEAN
type disk struct {
	t      *testing.T
	device string
	top    string
}

const planText = `{
  "version": 1, "device": %q, "snapshots": "@snapshots", "clean": "CLEAN", "mode": "reset", "revision": 7,
  "volumes": [
    {"name": "@root", "mountPoint": "/", "keep": ["/etc/ssh", "/var/lib"], "exclude": []},
    {"name": "@home", "mountPoint": "/home", "keep": ["/*/Documents"], "exclude": ["/*/Documents/tmp"]}
  ]
}`

// newDisk makes the disk, and gives the box its plan.
func newDisk(t *testing.T, b *box) *disk {
	t.Helper()
	fs := testx.NewFilesystem(t, 256<<20)
	fs.Remount("noatime") // to look must not change anything
	d := &disk{t: t, device: fs.Device, top: fs.Mount}
	d.sh(`
		btrfs -q subvolume create @root; btrfs -q subvolume create @home; btrfs -q subvolume create @snapshots
		mkdir -p @root/etc/ssh @root/var/lib @root/usr/bin @home/alice/Documents
		echo host > @root/etc/hostname; echo key > @root/etc/ssh/key; echo motd > @root/etc/motd
		echo program > @root/usr/bin/program; echo profile > @home/alice/.profile
		for v in @root @home; do mkdir -m 0700 @snapshots/$v; btrfs -q subvolume snapshot -r $v @snapshots/$v/CLEAN; done`)
	b.write(b.plan, fmt.Sprintf(planText, fs.Device))
	return d
}

// day is a day of work.
func (d *disk) day() {
	d.t.Helper()
	d.sh(`
		mkdir -p @root/tmp/build/deep; echo o > @root/tmp/build/deep/o; echo other > @root/etc/hostname
		rm @root/etc/motd; echo db > @root/var/lib/db; echo new > @root/etc/new; chmod 600 @root/usr/bin/program
		btrfs -q subvolume create @root/var/lib/machines; echo m > @root/var/lib/machines/m
		echo report > @home/alice/Documents/report; mkdir @home/alice/Documents/tmp
		echo scratch > @home/alice/Documents/tmp/scratch; echo > @home/alice/caf` + "$'\\xe9'")
}

func (d *disk) sh(script string) {
	d.t.Helper()
	cmd := exec.Command("bash", "-euc", script)
	cmd.Dir = d.top
	if out, err := cmd.CombinedOutput(); err != nil {
		d.t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

func (d *disk) tree(path string) model.Tree {
	d.t.Helper()
	tree, err := model.Read(filepath.Join(d.top, path))
	if err != nil {
		d.t.Fatal(err)
	}
	return tree
}

// snapshot is all that a disk holds, and when each subvolume changed last.
type snapshot struct {
	tree        model.Tree
	generations map[string]uint64
}

func (d *disk) look() snapshot {
	d.t.Helper()
	d.sh("sync -f .") // or the next commit would change the generations
	s := snapshot{tree: d.tree(""), generations: map[string]uint64{}}
	for path, e := range s.tree {
		if e.Subvolume {
			s.generations[path] = d.info(path).Generation
		}
	}
	return s
}

// same checks that nothing on the disk has changed.
func (d *disk) same(before snapshot) {
	d.t.Helper()
	after := d.look()
	if diff := model.Diff(before.tree, after.tree); diff != "" {
		d.t.Errorf("the disk changed:\n%s", diff)
	}
	for path, want := range before.generations {
		if got := after.generations[path]; got != want {
			d.t.Errorf("generation of %s = %d, want %d: something was written", path, got, want)
		}
	}
}

func (d *disk) info(path string) btrfs.Info {
	d.t.Helper()
	f, err := os.Open(filepath.Join(d.top, path))
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	info, err := btrfs.ReadInfo(f)
	if err != nil {
		d.t.Fatal(err)
	}
	return info
}

// exists checks which of the paths on the disk are there.
func (d *disk) exists(want bool, paths ...string) {
	d.t.Helper()
	for _, p := range paths {
		if got := fileExists(filepath.Join(d.top, p)); got != want {
			d.t.Errorf("%s exists: %v, want %v", p, got, want)
		}
	}
}
