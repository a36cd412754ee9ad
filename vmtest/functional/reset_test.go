package functional

import (
	"bufio"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"nixos-go/pkg/reset"
)

// day makes a day of work, marked by a name: something of each kind in both
// volumes, kept and not.
const day = `
# wiped
echo "$1" > /etc/rogue.conf; mkdir -p /opt/leftover; echo "$1" > /opt/leftover/"$1"
mkdir -p /home/admin/.cache/app; echo "$1" > /home/admin/.cache/app/x; echo "$1" > /home/admin/junk
# changed back, brought back
echo "$1" > /etc/hostname; echo "alias ls=rm # $1" > /home/admin/.bashrc; chmod 0777 /etc/gitconfig; rm -f /etc/debian_version
# kept
mkdir -p /var/log/app /var/lib/bluetooth; echo "$1" > /var/log/app/"$1"; echo "$1" > /var/lib/bluetooth/device
echo "$1" > /home/admin/Documents/"$1"; mkdir -p /home/admin/.ssh; echo "$1" > /home/admin/.ssh/id_ed25519; echo "$1" > /home/admin/.ssh/authorized_keys
sync
`

// exists is whether a path of the guest does.
func (b *box) exists(path string) bool {
	b.t.Helper()
	return strings.TrimSpace(b.sh(`if [ -e "$1" ]; then echo yes; else echo no; fi`, path)) == "yes"
}

// wantFiles compares files of the guest with what they should hold; "" is a
// file that should not exist.
func (b *box) wantFiles(want map[string]string) {
	b.t.Helper()
	for path, text := range want {
		got := b.sh(`if [ -e "$1" ]; then cat "$1"; else echo absent; fi`, path)
		if text == "" {
			text = "absent"
		}
		if got != text+"\n" {
			b.t.Errorf("%s holds %q, want %q", path, got, text+"\n")
		}
	}
}

// outcomes are those of a report by volume.
func outcomes(r reset.Report) map[string]reset.Outcome {
	out := map[string]reset.Outcome{}
	for i := range r.Volumes {
		out[r.Volumes[i].Name] = r.Volumes[i].Outcome
	}
	return out
}

// wantOutcome checks the mode of this boot's reset and what became of the
// volumes.
func (b *box) wantOutcome(mode reset.Mode, root, home reset.Outcome) reset.Report {
	b.t.Helper()
	r := b.report()
	if r.Mode != mode {
		b.t.Errorf("mode = %s (%s), want %s", r.Mode, r.ModeFrom, mode)
	}
	got, want := outcomes(r), map[string]reset.Outcome{"@root": root, "@home": home}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		b.t.Errorf("outcomes = %v, want %v; the report: %+v", got, want, r)
	}
	return r
}

// afterDay is what a reset must leave of [day].
func (b *box) afterDay(name string) {
	b.t.Helper()
	b.wantFiles(map[string]string{
		"/etc/rogue.conf": "", "/opt/leftover": "", "/home/admin/.cache": "", "/home/admin/junk": "",
		"/home/admin/.ssh/authorized_keys": "",
		"/etc/hostname":                    "vm-test", "/home/admin/.bashrc": "alias ll='ls -l'",
		"/var/log/app/" + name: name, "/var/lib/bluetooth/device": name,
		"/home/admin/Documents/" + name: name, "/home/admin/.ssh/id_ed25519": name,
	})
	if got := b.sh(`stat -c %a /etc/gitconfig; test -s /etc/debian_version && echo there`); got != "644\nthere\n" {
		b.t.Errorf("mode of gitconfig and debian_version = %q, want 644 and there", got)
	}
}

// noFailedUnits checks that the system is as healthy as its first boot.
func (b *box) noFailedUnits() {
	b.t.Helper()
	if failed := b.sh("systemctl list-units --failed --plain --no-legend"); failed != "" {
		b.t.Errorf("failed units:\n%s", failed)
	}
}

func TestVM_Reset(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.boot()
	r := b.wantOutcome(reset.ModeReset, reset.OutcomeReset, reset.OutcomeReset)
	for i := range r.Volumes {
		if v := r.Volumes[i]; v.Way != reset.WayFull || v.Wiped+v.ChangedBack+v.BroughtBack > 0 {
			t.Errorf("first boot of %s: %+v, want nothing to do, found by comparing all", v.Name, v)
		}
	}
	b.noFailedUnits()
	b.wantNotice("")
	b.sh(day, "monday")
	// A nested subvolume below a kept path moves along, another goes with the
	// old state.
	b.sh(`btrfs -q subvolume create /home/admin/Documents/project; echo code > /home/admin/Documents/project/main.go
	      btrfs -q subvolume create /opt/machine; echo disk > /opt/machine/image; sync`)
	announced := b.announced()
	b.powerOff()

	b.boot()
	r = b.wantOutcome(reset.ModeReset, reset.OutcomeReset, reset.OutcomeReset)
	for i := range r.Volumes {
		if v := r.Volumes[i]; v.Way != reset.WayChanged {
			t.Errorf("second boot of %s went the way %s, want %s", v.Name, v.Way, reset.WayChanged)
		}
	}
	b.afterDay("monday")
	b.noFailedUnits()
	if got := b.sh("systemctl is-active immutability-cleanup.timer"); got != "active\n" {
		t.Errorf("the timer of the cleanup is %q, want active", got)
	}
	b.wantFiles(map[string]string{
		"/home/admin/Documents/project/main.go": "code", "/opt/machine": "",
		"/.snapshots/@root/PREVIOUS/opt/machine/image": "disk", "/.snapshots/@root/PREVIOUS/etc/rogue.conf": "monday",
		"/.snapshots/@home/PREVIOUS/admin/junk": "monday",
	})
	if got := b.sh("btrfs subvolume show /home/admin/Documents/project | sed -n 's/^\tName: *\t*//p'"); got != "project\n" {
		t.Errorf("the nested subvolume that moved is named %q, want project", got)
	}
	wiped := b.wiped()
	for _, path := range announced {
		if !slices.Contains(wiped, path) {
			t.Errorf("nixos-diff has announced %s, which is not in the report of the reset:\n%s", path, strings.Join(wiped, "\n"))
		}
	}
	if len(announced) < 8 {
		t.Errorf("nixos-diff has announced %d paths, want those of the day at least: %v", len(announced), announced)
	}
	b.speed()
	b.sh(day, "tuesday")
	b.powerOff()

	// The cleanup comes when the test has looked at what it finds.
	b.boot("systemd.mask=immutability-cleanup.timer")
	b.wantOutcome(reset.ModeReset, reset.OutcomeReset, reset.OutcomeReset)
	b.afterDay("tuesday")
	b.wantFiles(map[string]string{
		"/.snapshots/@root/PREVIOUS/etc/rogue.conf": "tuesday", "/.snapshots/@root/PENULTIMATE/etc/rogue.conf": "monday",
		"/.snapshots/@home/PREVIOUS/admin/junk": "tuesday", "/.snapshots/@home/PENULTIMATE/admin/junk": "monday",
		"/home/admin/Documents/monday": "monday", "/home/admin/Documents/project/main.go": "code",
	})
	b.cleanup()
	b.powerOff()
}

// announced are the paths, "volume path", that nixos-diff says the next boot
// wipes or changes.
func (b *box) announced() []string {
	b.t.Helper()
	var report struct {
		Findings []struct {
			Path string     `json:"path"`
			Kind reset.Kind `json:"kind"`
		} `json:"findings"`
	}
	if err := json.Unmarshal([]byte(b.sh("nixos-diff --json")), &report); err != nil {
		b.t.Fatal(err)
	}
	var paths []string
	for _, f := range report.Findings {
		if f.Kind == reset.KindAdded || f.Kind == reset.KindModified {
			paths = append(paths, f.Path)
		}
	}
	return paths
}

// wiped are the paths of wiped.jsonl, as the system has them.
func (b *box) wiped() []string {
	b.t.Helper()
	mounts := map[string]string{"@root": "", "@home": "/home"}
	var paths []string
	lines := bufio.NewScanner(strings.NewReader(b.sh("cat /run/initrd-reset/wiped.jsonl")))
	for lines.Scan() {
		var line struct {
			Volume string `json:"volume"`
			Path   string `json:"path"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			b.t.Fatal(err)
		}
		paths = append(paths, mounts[line.Volume]+line.Path)
	}
	return paths
}

var startup = regexp.MustCompile(`([0-9.]+)s \(initrd\)`)

// speed tells what the reset took of the boot. Emulation makes times useless
// for a bound; what counts is the share.
func (b *box) speed() {
	b.t.Helper()
	r := b.report()
	analysis := b.sh("systemd-analyze time")
	match := startup.FindStringSubmatch(analysis)
	if match == nil {
		b.t.Errorf("systemd-analyze says nothing of the initrd: %q", analysis)
		return
	}
	b.t.Logf("the reset took %.0f ms; the boot: %s", r.Milliseconds, strings.TrimSpace(analysis))
	var initrd float64
	if _, err := fmt.Sscan(match[1], &initrd); err != nil {
		b.t.Fatal(err)
	}
	if r.Milliseconds <= 0 || r.Milliseconds > 1000*initrd {
		b.t.Errorf("the reset took %v ms of an initrd of %v s", r.Milliseconds, initrd)
	}
	for _, phase := range r.Phases {
		b.t.Logf("  %-10s %7.1f ms", phase.Name, phase.Milliseconds)
	}
}

// cleanup runs the service that follows a boot, and checks what it leaves.
func (b *box) cleanup() {
	b.t.Helper()
	before := b.sh("ls -A /.immutability-trash /home/.immutability-trash; ls /.snapshots/@root /.snapshots/@home")
	if !strings.Contains(before, "AGED-") {
		b.t.Errorf("nothing waits for the cleanup after the third boot:\n%s", before)
	}
	b.sh("systemctl start immutability-cleanup.service")
	if got := b.sh("systemctl show -P Result -P ExecMainStatus immutability-cleanup.service"); got != "success\n0\n" {
		b.t.Errorf("result and status of the cleanup = %q; its journal:\n%s", got, b.sh("journalctl -b -u immutability-cleanup.service"))
	}
	for _, volume := range []string{"@root", "@home"} {
		want := "CLEAN\nCURRENT\nPENULTIMATE\nPREVIOUS\n"
		if got := b.sh(`ls "/.snapshots/$1"`, volume); got != want {
			b.t.Errorf("snapshots of %s after the cleanup = %q, want %q", volume, got, want)
		}
		if got := b.sh(`btrfs property get -ts "/.snapshots/$1/PREVIOUS" ro`, volume); got != "ro=true\n" {
			b.t.Errorf("PREVIOUS of %s after the cleanup: %q, want ro=true", volume, got)
		}
	}
	if got := b.sh("for d in /.immutability-trash /home/.immutability-trash; do if [ -e $d ]; then ls -A $d; fi; done"); got != "" {
		b.t.Errorf("the trash after the cleanup holds %q", got)
	}
}
