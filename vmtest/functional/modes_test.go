package functional

import (
	"fmt"
	"strings"
	"testing"

	"nixos-go/pkg/reset"
)

func TestVM_Modes(t *testing.T) {
	t.Parallel()
	b := booted(t)
	b.sh(day, "monday")
	b.powerOff()

	b.boot("immutability.mode=snapshot-only")
	r := b.wantOutcome(reset.ModeSnapshotOnly, reset.OutcomeSnapshot, reset.OutcomeSnapshot)
	if r.ModeFrom == "the plan" {
		t.Errorf("the mode comes from %q, want the kernel command line", r.ModeFrom)
	}
	b.wantFiles(map[string]string{"/etc/rogue.conf": "monday", "/home/admin/junk": "monday", "/.snapshots/@root/PREVIOUS/etc/rogue.conf": "monday"})
	b.sh(day, "tuesday")
	b.powerOff()

	b.boot("immutability.mode=disabled")
	b.wantOutcome(reset.ModeDisabled, reset.OutcomeDisabled, reset.OutcomeDisabled)
	b.wantFiles(map[string]string{"/etc/rogue.conf": "tuesday", "/.snapshots/@root/PREVIOUS/etc/rogue.conf": "monday"})
	if got := b.sh("journalctl -b -u immutability.service -o cat"); !strings.Contains(got, "disabled") {
		t.Errorf("the journal does not say that the reset is disabled:\n%s", got)
	}
	b.powerOff()

	b.boot()
	b.wantOutcome(reset.ModeReset, reset.OutcomeReset, reset.OutcomeReset)
	b.afterDay("tuesday")
	b.powerOff()

	b.boot("immutability.mode=restore-previous")
	r = b.wantOutcome(reset.ModeRestorePrevious, reset.OutcomeRestored, reset.OutcomeRestored)
	b.wantFiles(map[string]string{
		"/etc/rogue.conf": "tuesday", "/home/admin/junk": "tuesday", "/etc/hostname": "tuesday",
		"/.snapshots/@root/REPLACED/etc/hostname": "vm-test",
	})
	if len(r.Volumes) == 0 || !strings.Contains(strings.Join(r.Volumes[0].Warnings, "\n"), "every boot") {
		t.Errorf("a restore does not warn that it restores at every boot: %+v", r.Volumes)
	}
	b.powerOff()

	b.boot("immutability.mode=restore-penultimate")
	b.wantOutcome(reset.ModeRestorePenultimate, reset.OutcomeRestored, reset.OutcomeRestored)
	b.wantFiles(map[string]string{
		"/etc/rogue.conf": "monday", "/home/admin/junk": "monday", "/.snapshots/@root/REPLACED/etc/rogue.conf": "tuesday",
	})
	b.powerOff()
}

// wantNotice checks what is said at login about this boot's reset; "" is
// nothing.
func (b *box) wantNotice(text string) {
	b.t.Helper()
	b.sh("systemctl start immutability-notice.service") // waits for it
	got := b.sh("if [ -e /run/immutability/notice ]; then cat /run/immutability/notice; fi")
	if (text == "") != (got == "") || !strings.Contains(got, text) {
		b.t.Errorf("the notice at login = %q, want %q in it", got, text)
	}
}

// journal is what the reset's unit has said in this boot.
func (b *box) journal() string {
	return b.sh("journalctl -b -u immutability.service -o cat --no-pager")
}

func TestVM_BrokenPlan(t *testing.T) {
	t.Parallel()
	b := booted(t)
	b.sh(day, "monday")
	b.powerOff()

	b.Boot.Plan = []byte(strings.Replace(string(b.planFile()), `"version"`, `"surprise":1,"version"`, 1))
	b.boot()
	b.wantFiles(map[string]string{"/etc/rogue.conf": "monday", "/home/admin/junk": "monday", "/etc/hostname": "monday"})
	if got := b.journal(); !strings.Contains(got, "surprise") {
		t.Errorf("the journal does not name the unknown field:\n%s", got)
	}
	r := b.report()
	if !strings.Contains(r.Error, "surprise") || len(r.Volumes) != 0 {
		t.Errorf("the report: error %q and %d volumes, want one that names the field, and none", r.Error, len(r.Volumes))
	}
	if got := b.Console().Text(); !strings.Contains(got, "surprise") {
		t.Errorf("the console is silent about the broken plan:\n%s", b.Console().Tail(40))
	}
	b.wantNotice("nothing was touched")
	b.powerOff()

	// With the plan mended, the machine is as if nothing had been.
	b.Boot.Plan = nil
	b.boot()
	b.wantOutcome(reset.ModeReset, reset.OutcomeReset, reset.OutcomeReset)
	b.afterDay("monday")
	b.powerOff()
}

func TestVM_FailingReset(t *testing.T) {
	t.Parallel()
	b := booted(t)
	b.sh(day, "monday")
	// One volume cannot be reset: its CLEAN is gone.
	b.sh("mv /.snapshots/@home/CLEAN /.snapshots/@home/LOST; sync")
	b.powerOff()

	b.boot()
	r := b.wantOutcome(reset.ModeReset, reset.OutcomeReset, reset.OutcomeFailed)
	b.wantFiles(map[string]string{"/etc/rogue.conf": "", "/etc/hostname": "vm-test", "/home/admin/junk": "monday", "/home/admin/Documents/monday": "monday"})
	if !r.Failed() {
		t.Error("the report does not count as failed")
	}
	if got := b.journal(); !strings.Contains(got, "@home: left as it was") || !strings.Contains(got, "CLEAN") {
		t.Errorf("the journal does not say what failed and why:\n%s", got)
	}
	if got := b.Console().Text(); !strings.Contains(got, "left as it was") {
		t.Errorf("the console is silent:\n%s", b.Console().Tail(40))
	}
	b.wantNotice("left as they were: @home")
	b.sh("mv /.snapshots/@home/LOST /.snapshots/@home/CLEAN; sync")
	b.powerOff()

	b.boot()
	b.wantOutcome(reset.ModeReset, reset.OutcomeReset, reset.OutcomeReset)
	b.wantFiles(map[string]string{"/home/admin/junk": "", "/home/admin/Documents/monday": "monday"})
	b.powerOff()
}

// An older generation never wipes what a newer one keeps.
func TestVM_OlderGeneration(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	older := clonePlan(t, b.Plan)
	older.Revision = 100
	newer := clonePlan(t, b.Plan)
	newer.Revision = 200
	newer.Volumes[0].Keep = append(newer.Volumes[0].Keep, "/srv/new")
	latest := clonePlan(t, older)
	latest.Revision = 300

	b.Plan = newer
	b.boot()
	b.sh("mkdir /srv/new; echo data > /srv/new/x; echo junk > /srv/other; sync")
	b.powerOff()

	b.Plan = older
	b.boot()
	// Nothing has happened below /home, and its rules are the same.
	r := b.wantOutcome(reset.ModeReset, reset.OutcomeReset, reset.OutcomeUnchanged)
	b.wantFiles(map[string]string{"/srv/new/x": "data", "/srv/other": ""})
	if text := fmt.Sprint(r.Warnings, r.Volumes); !strings.Contains(text, "older") {
		t.Errorf("the report does not say that the generation is older: %s", text)
	}
	b.powerOff()

	b.Plan = latest
	b.boot()
	b.wantFiles(map[string]string{"/srv/new": "", "/srv/other": ""})
	b.powerOff()
}
