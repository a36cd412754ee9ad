package snapshot

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/settings"
	"nixos-go/pkg/testx"
	"nixos-go/pkg/testx/tooltest"
)

func TestMain(m *testing.M) {
	tooltest.Main(m, tooltest.Tools{"nixos-snapshot": newApp})
}

// TestScripts runs the scripts. Beside tooltest's commands they have
//
//	machine           makes a machine: @root and @home on a disk, mounted at $ROOT
//	sh SCRIPT         runs a script in $ROOT; $TOP is the top level of the disk
//	boot [FLAG…]      boots it: unmounts, resets (initrd-reset with FLAGs), mounts
//	plain IN OUT      copies a file with what differs in each run made the same
func TestScripts(t *testing.T) {
	tooltest.Scripts(t, "testdata", func(p *testscript.Params) {
		setup := p.Setup
		p.Setup = func(env *testscript.Env) error {
			env.Setenv("TOP", filepath.Join(env.WorkDir, "top"))
			return setup(env)
		}
		p.Cmds["machine"] = makeMachine
		p.Cmds["sh"] = shell
		p.Cmds["boot"] = boot
		p.Cmds["plain"] = plain
	})
}

// planText is what the machine's plan says: who owns it keeps little.
const planText = `{
  "version": 1, "device": %q, "snapshots": "@snapshots", "clean": "CLEAN", "mode": "reset", "revision": 7,
  "volumes": [
    {"name": "@root", "mountPoint": "/", "keep": ["/etc/ssh", "/etc/immutability", "/nix", "/run", "/proc", "/home"], "exclude": ["/etc/ssh/cache"]},
    {"name": "@home", "mountPoint": "/home", "keep": ["/*/Documents"], "exclude": []}
  ]
}`

// disk is the disk of a script's machine.
type disk struct {
	device string
	tb     testing.TB
	root   string
	top    string
	work   string
}

// mounting is held while anything is mounted or unmounted, or a reset looks at what is:
// scripts run at the same time.
var mounting sync.Mutex //nolint:gochecknoglobals // see above

// newDisk makes a machine in a folder:
//
//	work/top    the top level: @root @home @snapshots
//	work/root   @root, with @home at /home
func newDisk(tb testing.TB, work string) *disk {
	tb.Helper()
	mounting.Lock()
	defer mounting.Unlock()
	fs := testx.NewFilesystem(tb, 512<<20, testx.WithMountOptions("noatime"))
	d := &disk{device: fs.Device, tb: tb, root: filepath.Join(work, "root"), top: filepath.Join(work, "top"), work: work}
	for _, dir := range []string{d.root, d.top} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	d.mount("subvolid=5", d.top)
	d.sh(`cd "$TOP"; for v in @root @home @snapshots; do btrfs -q subvolume create $v; done; chmod 0700 @snapshots
		mkdir -p @root/home @root/etc/immutability @root/nix/var/nix/profiles/system/etc @root/run @root/proc @root/tmp`)
	tb.Cleanup(func() {
		mounting.Lock()
		defer mounting.Unlock()
		d.unmountLive()
		_ = unix.Unmount(d.top, unix.MNT_DETACH)
	})
	d.mountLive()
	d.write(settings.PlanFile, fmt.Sprintf(planText, d.device))
	d.sh(`ln -s ../../../../../../etc/immutability nix/var/nix/profiles/system/etc/immutability`)
	return d
}

func (d *disk) mount(options, dir string) {
	d.tb.Helper()
	if err := unix.Mount(d.device, dir, "btrfs", unix.MS_NOATIME, options); err != nil {
		d.tb.Fatalf("mount %s at %s: %v", options, dir, err)
	}
}

func (d *disk) mountLive() {
	d.tb.Helper()
	d.mount("subvol=@root", d.root)
	d.mount("subvol=@home", filepath.Join(d.root, "home"))
}

func (d *disk) unmountLive() {
	_ = unix.Unmount(filepath.Join(d.root, "home"), unix.MNT_DETACH)
	_ = unix.Unmount(d.root, unix.MNT_DETACH)
}

func (d *disk) write(name, text string) {
	d.tb.Helper()
	name = filepath.Join(d.root, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		d.tb.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		d.tb.Fatal(err)
	}
}

// sh runs a script in the machine's root.
func (d *disk) sh(script string) {
	d.tb.Helper()
	cmd := exec.Command("bash", "-euc", script)
	cmd.Dir = d.root
	cmd.Env = append(os.Environ(), "TOP="+d.top)
	if out, err := cmd.CombinedOutput(); err != nil {
		d.tb.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// boot does what a boot does.
func (d *disk) boot(flags ...string) {
	d.tb.Helper()
	mounting.Lock()
	defer mounting.Unlock()
	plan := filepath.Join(d.work, "plan.json")
	text, err := os.ReadFile(filepath.Join(d.root, settings.PlanFile))
	if err == nil {
		err = os.WriteFile(plan, text, 0o600)
	}
	if err != nil {
		d.tb.Fatal(err)
	}
	d.unmountLive()
	report := filepath.Join(d.work, "initrd-reset")
	if err := os.RemoveAll(report); err != nil {
		d.tb.Fatal(err)
	}
	args := append([]string{"--plan", plan, "--device", d.device, "--report", filepath.Join(report, "report.json")}, flags...)
	cmd := exec.Command(initrdReset(d.tb), args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		d.tb.Fatalf("initrd-reset: %v\n%s", err, out)
	}
	d.mountLive()
	d.sh(`rm -rf run/initrd-reset; cp -a "$TOP/../initrd-reset" run/`)
}

// initrdReset builds the boot-time program, once.
func initrdReset(tb testing.TB) string {
	tb.Helper()
	binary, err := buildOnce()
	if err != nil {
		tb.Fatal(err)
	}
	return binary
}

var buildOnce = sync.OnceValues(func() (string, error) { //nolint:gochecknoglobals // built once for all scripts
	dir, err := os.MkdirTemp("", "nixos-snapshot-test-")
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "initrd-reset")
	cmd := exec.Command("go", "build", "-o", binary, "nixos-go/initrd-reset")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build initrd-reset: %w\n%s", err, out)
	}
	return binary, nil
})

func makeMachine(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: machine")
	}
	// Its own test, so that all is undone when the script ends.
	machines.Store(ts.Getenv("WORK"), newDisk(tooltest.TB(ts), ts.Getenv("WORK")))
}

// machines are those of the scripts, by their folder.
var machines sync.Map //nolint:gochecknoglobals // see above

func machineOf(ts *testscript.TestScript) *disk {
	d, _ := machines.Load(ts.Getenv("WORK"))
	machine, ok := d.(*disk)
	if !ok {
		ts.Fatalf("there is no machine")
	}
	return machine
}

func shell(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: sh SCRIPT")
	}
	d := machineOf(ts)
	mounting.Lock()
	defer mounting.Unlock()
	cmd := exec.Command("bash", "-euc", args[0])
	cmd.Dir = d.root
	cmd.Env = os.Environ()
	for _, name := range []string{"TOP", "WORK", "ROOT", "PATH", "TOOL_UID"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	out, err := cmd.CombinedOutput()
	ts.Logf("%s", out)
	if err != nil {
		ts.Fatalf("%s: %v", args[0], err)
	}
}

func boot(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: boot [FLAG…]")
	}
	machineOf(ts).boot(args...)
}

var (
	uuids  = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	short  = regexp.MustCompile(`AGED-[0-9a-f]{8}…`)
	times  = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+(Z|[+-]\d\d:\d\d)`)
	ages   = regexp.MustCompile(`( *)\b\d+ seconds?\b`)
	loops  = regexp.MustCompile(`/dev/loop\d+`)
	spaces = regexp.MustCompile(`("available(?:Before|After)": )\d+`)
	sizes  = regexp.MustCompile(`\d+(\.\d+)? [KMG]iB (are free|more available)`)
	items  = regexp.MustCompile(`\(\d+ items\)`)
)

// plain replaces what differs in each run: UUIDs by numbers in the order of their
// appearance, times, ages, devices and free space.
func plain(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: plain IN OUT")
	}
	text := ts.ReadFile(args[0])
	seen := map[string]string{}
	text = uuids.ReplaceAllStringFunc(text, func(s string) string {
		if seen[s] == "" {
			seen[s] = "UUID" + strconv.Itoa(len(seen)+1)
		}
		return seen[s]
	})
	text = short.ReplaceAllString(text, "AGED-UUID…")
	text = times.ReplaceAllString(text, "TIME")
	text = ages.ReplaceAllString(text, " AGE")
	text = loops.ReplaceAllString(text, "/dev/DISK")
	text = spaces.ReplaceAllString(text, "${1}0")
	text = sizes.ReplaceAllString(text, "SIZE $2")
	text = items.ReplaceAllString(text, "(N items)")
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o644))
}

// info tells of a subvolume of the disk.
func (d *disk) info(path string) btrfs.Info {
	d.tb.Helper()
	f, err := os.Open(filepath.Join(d.top, path))
	if err != nil {
		d.tb.Fatal(err)
	}
	defer f.Close()
	info, err := btrfs.ReadInfo(f)
	if err != nil {
		d.tb.Fatal(err)
	}
	return info
}

func TestAbsolute(t *testing.T) {
	for _, test := range []struct{ mountPoint, path, want string }{
		{"/", "/", "/"},
		{"/", "/etc/a", "/etc/a"},
		{"/home", "/", "/home"},
		{"/home", "/alice", "/home/alice"},
	} {
		if got := absolute(test.mountPoint, test.path); got != test.want {
			t.Errorf("absolute(%q, %q) = %q, want %q", test.mountPoint, test.path, got, test.want)
		}
	}
}

func TestVolumeOf(t *testing.T) {
	m := &machine{plan: &reset.PlanFile{Volumes: []reset.PlanFileVolume{
		{Name: "@home", MountPoint: "/home"}, {Name: "@root", MountPoint: "/"}, {Name: "@alice", MountPoint: "/home/alice"},
	}}}
	for path, want := range map[string][2]string{
		"/":             {"@root", "/"},
		"/homes/x":      {"@root", "/homes/x"},
		"/home":         {"@home", "/"},
		"/home/bob/x":   {"@home", "/bob/x"},
		"/home/alice":   {"@alice", "/"},
		"/home/alice/x": {"@alice", "/x"},
	} {
		v, rel, err := m.volumeOf(path)
		if err != nil || v.Name != want[0] || rel != want[1] {
			t.Errorf("volumeOf(%q) = %+v, %q, %v, want %q", path, v, rel, err, want)
		}
	}
	m.plan.Volumes = m.plan.Volumes[:1]
	if _, _, err := m.volumeOf("/etc/a"); err == nil {
		t.Error("volumeOf a path on no volume succeeds")
	}
}
