// Package vmtest runs virtual machines in tests.
//
// A machine has a folder of its own that goes with the test. If the test fails,
// the folder stays, and the test prints where it is, the end of the console, and
// the command line that boots the machine again. Nothing of a machine survives
// its test otherwise, however that ends.
//
// Where the machine that tests run on lacks what it takes, a test is skipped
// with the reason, unless NIXOS_GO_NO_SKIP is in the environment.
package vmtest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"nixos-go/pkg/testx"
	"nixos-go/vmtest/accel"
	"nixos-go/vmtest/debian"
	"nixos-go/vmtest/guest/minimal"
	"nixos-go/vmtest/machine"
	"nixos-go/vmtest/stage"
)

// Timeout bounds one wait in a guest. It is for what hangs, not for what is
// slow: emulation on a busy machine takes its time.
const Timeout = 8 * time.Minute

// Context ends with the test, or after [Timeout].
func Context(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeoutCause(tb.Context(), Timeout, errors.New("a wait in a virtual machine has hung"))
	tb.Cleanup(cancel)
	return ctx
}

// Dir makes a folder that goes with the test, unless the test fails.
func Dir(tb testing.TB) string {
	tb.Helper()
	name := strings.NewReplacer("/", "-", " ", "-").Replace(tb.Name())
	dir, err := os.MkdirTemp("", "vm-"+name+"-") //nolint:usetesting // stays when the test fails
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("kept: %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	return dir
}

// CacheDir is the folder of what machines are made from: that in the variable
// NIXOS_GO_VM_CACHE, or .cache/vm of the project.
func CacheDir() (string, error) {
	if dir := os.Getenv(debian.CacheVariable); dir != "" {
		return filepath.Abs(dir)
	}
	root, err := Root()
	return filepath.Join(root, ".cache", "vm"), err
}

// Root is the project's folder: the nearest one above that has a go.work.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("not inside the project: no go.work in this folder or above")
		}
	}
}

// StateVariable names another folder than .vm.
const StateVariable = "NIXOS_GO_VM_STATE"

// StateDir is the folder for machines and checkpoints: that in the variable
// NIXOS_GO_VM_STATE, or .vm of the project.
func StateDir() (string, error) {
	if dir := os.Getenv(StateVariable); dir != "" {
		return filepath.Abs(dir)
	}
	root, err := Root()
	return filepath.Join(root, ".vm"), err
}

// Stages are the states that tests begin from; the variables VM_CLEAN,
// VM_CLEAN_ALL and VM_FROM rule them.
func Stages(tb testing.TB) stage.Store {
	tb.Helper()
	state, err := StateDir()
	if err != nil {
		tb.Fatal(err)
	}
	cache, err := CacheDir()
	if err != nil {
		tb.Fatal(err)
	}
	store, err := stage.Open(Context(tb), filepath.Join(state, "checkpoints"), os.Getenv, cache)
	if err != nil {
		tb.Fatal(err)
	}
	return store
}

// Cache is the cache of Debian packages. The test ends where there can be none.
func Cache(tb testing.TB) debian.Cache {
	tb.Helper()
	if err := debian.Available(); err != nil {
		if _, statErr := os.Stat("/etc/debian_version"); statErr != nil {
			tb.Skip("guests are made of Debian packages, and this is no Debian: " + err.Error())
		}
		testx.Unavailable(tb, err.Error())
	}
	Stages(tb) // may have orders to take the cache away first
	dir, err := CacheDir()
	if err != nil {
		tb.Fatal(err)
	}
	return debian.Cache{Dir: filepath.Join(dir, "debian")}
}

// Need ends the test where programs are missing: QEMU, swtpm, …
func Need(tb testing.TB, programs ...string) {
	tb.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			testx.Unavailable(tb, err.Error())
		}
	}
}

// Minimal builds the minimal guest.
func Minimal(tb testing.TB, o minimal.Options) minimal.Guest {
	tb.Helper()
	if o.Arch == "" {
		o.Arch = machine.AMD64
	}
	Need(tb, "qemu-img", map[machine.Arch]string{machine.AMD64: "qemu-system-x86_64", machine.ARM64: "qemu-system-aarch64"}[o.Arch])
	g, err := minimal.Build(Context(tb), Cache(tb), Dir(tb), o)
	if err != nil {
		tb.Fatal(err)
	}
	return g
}

// New makes a machine in a folder of the test; it is not started. It ends with
// the test.
func New(tb testing.TB, spec machine.Spec) *machine.Machine {
	tb.Helper()
	if spec.Accel == "" && (spec.Arch == "" || spec.Arch == machine.Arch(runtime.GOARCH)) {
		spec.Accel = Accel(tb)
	}
	m, err := machine.Create(Context(tb), filepath.Join(Dir(tb), "machine"), spec)
	if err != nil {
		tb.Fatal(err)
	}
	Watch(tb, m)
	return m
}

// Accel is how guests of this architecture run here.
func Accel(tb testing.TB) machine.Accel {
	tb.Helper()
	dir, err := CacheDir()
	if err != nil {
		tb.Fatal(err)
	}
	choice, err := accel.Probe(Context(tb), dir, Cache(tb))
	if err != nil {
		tb.Fatal(err)
	}
	return choice.Accel
}

// Watch ends a machine with the test, and says what there is to say if that has
// failed. The machine's folder is the caller's.
func Watch(tb testing.TB, m *machine.Machine) {
	tb.Helper()
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("machine %s: the end of its console:\n%s", m.Spec.Name, m.Console().Tail(40))
			tb.Logf("machine %s: this boots it again, on its disks as they are now:\n  %s\nwhich runs:\n  %s",
				m.Spec.Name, m.Repeat(), m.CommandLine())
		}
		if err := m.Stop(); err != nil {
			tb.Error(err)
		}
	})
}

// Start makes a machine, starts it, and waits until its guest answers.
func Start(tb testing.TB, spec machine.Spec, options ...machine.StartOption) *machine.Machine {
	tb.Helper()
	m := New(tb, spec)
	if err := m.Start(Context(tb), options...); err != nil {
		tb.Fatal(err)
	}
	if _, err := m.Ready(Context(tb)); err != nil {
		tb.Fatal(err)
	}
	return m
}

// OVMF is the system's UEFI firmware for PCs, without Secure Boot.
func OVMF(tb testing.TB) *machine.Firmware {
	tb.Helper()
	f := &machine.Firmware{Code: "/usr/share/OVMF/OVMF_CODE_4M.fd", Vars: "/usr/share/OVMF/OVMF_VARS_4M.fd"}
	for _, path := range []string{f.Code, f.Vars} {
		if _, err := os.Stat(path); err != nil {
			testx.Unavailable(tb, "no UEFI firmware (Debian: package ovmf): "+err.Error())
		}
	}
	return f
}
