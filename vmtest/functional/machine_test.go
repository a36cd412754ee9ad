package functional

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"nixos-go/pkg/reset"
	"nixos-go/vmtest"
	"nixos-go/vmtest/agent"
	"nixos-go/vmtest/guest/full"
	"nixos-go/vmtest/guest/host"
	"nixos-go/vmtest/machine"
)

// box is a machine of one test, and what it boots next.
type box struct {
	*machine.Machine

	t    *testing.T
	host *host.Host
	// Boot is the next generation to boot.
	Boot full.Boot
	// Plan is what Boot's plan file is made from unless it has one.
	Plan reset.PlanFile

	base []string // the kernel's command line
	seen int      // the console before this boot
}

// firmware makes a machine that UEFI firmware starts, with a TPM.
func firmware(l *host.Host, s *machine.Spec) { l.Emulator.Firmware(s) }

// newBox makes a machine with the host's own plan; it was never started.
func newBox(t *testing.T, change ...func(*host.Host, *machine.Spec)) *box {
	t.Helper()
	b := plainBox(t)
	spec := b.host.Spec(nameOf(t), "")
	for _, f := range change {
		f(b.host, &spec)
	}
	b.Machine = vmtest.New(t, spec)
	return b
}

// plainBox boots the host's own plan, once it has a machine.
func plainBox(t *testing.T) *box {
	t.Helper()
	l := need(t)
	return &box{t: t, host: l, base: full.Cmdline(), Plan: clonePlan(t, l.Plan), Boot: l.Boot()}
}

// nameOf is the name of a test's machine.
func nameOf(t *testing.T) string {
	t.Helper()
	return strings.ToLower(strings.TrimPrefix(t.Name(), "TestVM_"))
}

func clonePlan(t *testing.T, p reset.PlanFile) reset.PlanFile {
	t.Helper()
	p.Volumes = slices.Clone(p.Volumes)
	for i := range p.Volumes {
		p.Volumes[i].Keep = slices.Clone(p.Volumes[i].Keep)
		p.Volumes[i].Exclude = slices.Clone(p.Volumes[i].Exclude)
	}
	return p
}

// planFile is the plan as a generation has it.
func (b *box) planFile() []byte {
	b.t.Helper()
	text, err := json.Marshal(b.Plan)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := reset.ParsePlanFile(bytes.NewReader(text)); err != nil {
		b.t.Fatal(err)
	}
	return text
}

// boot starts the machine and waits for the agent in the booted system.
func (b *box) boot(words ...string) {
	b.t.Helper()
	b.launch(words...)
	b.ready()
}

// start starts the machine as it is, and waits for the agent.
func (b *box) start() {
	b.t.Helper()
	if err := b.Start(vmtest.Context(b.t)); err != nil {
		b.t.Fatal(err)
	}
	b.ready()
}

// ready waits for the agent in the booted system.
func (b *box) ready() agent.Hello {
	b.t.Helper()
	hello, err := b.Ready(vmtest.Context(b.t))
	if err != nil {
		b.t.Fatal(err)
	}
	return hello
}

// launch starts the next generation with further words on the command line.
func (b *box) launch(words ...string) {
	b.t.Helper()
	boot := b.Boot
	if boot.Plan == nil {
		boot.Plan = b.planFile()
	}
	// Where a stage is of earlier sources, what it boots from now on is not.
	b.Spec.Programs, b.Spec.Kernel = b.host.Emulator.Programs, b.host.Guest.Kernel
	setTools(&b.Spec, b.host.Tools.Disk)
	b.Spec.Initrd = filepath.Join(b.Dir, "initrd.cpio")
	if err := b.host.Guest.WriteInitrd(boot, b.Spec.Initrd); err != nil {
		b.t.Fatal(err)
	}
	b.Spec.Cmdline = append(slices.Clone(b.base), words...)
	if err := b.Start(vmtest.Context(b.t)); err != nil {
		b.t.Fatal(err)
	}
}

// powerOff ends the machine in an orderly way.
func (b *box) powerOff() {
	b.t.Helper()
	if err := b.PowerOff(vmtest.Context(b.t)); err != nil {
		b.t.Fatal(err)
	}
}

// sh runs a script in the guest and returns what it prints.
func (b *box) sh(script string, args ...string) string {
	b.t.Helper()
	out, err := b.Shell(vmtest.Context(b.t), script, args...)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// report is that of this boot's reset.
func (b *box) report() reset.Report {
	b.t.Helper()
	text, err := b.Agent().GetBytes(vmtest.Context(b.t), "/run/initrd-reset/report.json")
	if err != nil {
		b.t.Fatal(err)
	}
	var r reset.Report
	if err := json.Unmarshal(text, &r); err != nil {
		b.t.Fatal(err)
	}
	return r
}

// firmwareBoot starts a machine that boots from its own disk, and waits for the
// system. The firmware, the loader and the TPM decide.
func (b *box) firmwareBoot() {
	b.t.Helper()
	b.Spec.Credentials = nil
	b.seen = len(b.Console().Text())
	b.start()
}

// typeAtFirmwareBoot does the same, and types the passphrase that is asked for.
func (b *box) typeAtFirmwareBoot(passphrase string) {
	b.t.Helper()
	b.Spec.Credentials = nil
	b.seen = len(b.Console().Text())
	if err := b.Start(vmtest.Context(b.t)); err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.Expect(vmtest.Context(b.t), prompt); err != nil {
		b.t.Fatal(err)
	}
	if err := b.Type(passphrase + "\n"); err != nil {
		b.t.Fatal(err)
	}
	b.ready()
}

// tpmUnlocked tells whether nobody was asked in this boot.
func (b *box) tpmUnlocked() bool {
	return !regexp.MustCompile(prompt).MatchString(b.Console().Text()[b.seen:])
}
