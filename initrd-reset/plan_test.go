package main

import (
	"strings"
	"testing"
)

// A plan that is missing, empty or wrong never means "keep nothing": status 2, one
// line that names what is wrong, and nothing is touched.
func TestPlanErrors(t *testing.T) {
	b := newBox(t)
	d := newDisk(t, b)
	d.day()
	good := b.read(b.plan)
	before := d.look()
	for _, tt := range []struct{ name, old, text, says string }{
		{"empty", good, "", b.plan + ": plan file: it is empty"},
		{"blank", good, " \n\t", "plan file: it is empty"},
		{"cut off", "}\n  ]\n}", "", "plan file: cut off"},
		{"not JSON", `"version": 1`, `version: 1`, "plan file: not JSON at byte"},
		{"version", `"version": 1`, `"version": 2`, `plan file: field "version" is 2, this program reads version 1`},
		{"unknown field", `"revision"`, `"revisions"`, `unknown field "revisions"`},
		{"type", `["/etc/ssh", "/var/lib"]`, `"/etc/ssh"`, `field "volumes.keep" is a string`},
		{"mode", `"mode": "reset"`, `"mode": "rest"`, `field "mode": unknown mode "rest"`},
		{"rule", `"/etc/ssh"`, `"/etc/../ssh"`, "/etc/../ssh"},
		{"no volumes", good, `{"version": 1, "volumes": []}`, `field "volumes" names no volume`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b.t = t
			b.forget()
			b.write(b.plan, strings.Replace(good, tt.old, tt.text, 1))
			b.want(exitUsage, "initrd-reset: error: ", "initrd-reset", "--device", d.top)
			if got := b.stderr.String(); !strings.Contains(got, tt.says) || strings.Count(got, "\n") != 1 {
				t.Errorf("it says %q, want one line with %q", got, tt.says)
			}
			if got := b.readReport(); !strings.Contains(got.Error, tt.says) || got.Milliseconds < 0 || got.Started.IsZero() {
				t.Errorf("report = %+v, want the error and the time", got)
			}
			d.same(before)
		})
	}
	b.t = t
	b.want(exitUsage, "plan file: open /nonexistent/plan.json: no such file or directory", "initrd-reset", "--plan", "/nonexistent/plan.json", "--device", d.top)
	b.want(exitUsage, "plan file: read", "initrd-reset", "--plan", "/proc/self", "--device", d.top)
	b.write(b.plan, `{"version": 1, "volumes": [{"name": "@root", "mountPoint": "/", "keep": ["/etc"], "exclude": []}]}`)
	b.want(exitUsage, "no device: name one in the plan, or with --device", "initrd-reset")
	d.same(before)
}

// Mode disabled needs neither plan nor device.
func TestDisabled(t *testing.T) {
	b := newBox(t)
	d := newDisk(t, b)
	d.day()
	good := b.read(b.plan)
	before := d.look()
	for _, tt := range []struct {
		name, plan, line string
		args             []string
		from             string
		volumes          int
	}{
		{"plan", strings.Replace(good, `"mode": "reset"`, `"mode": "disabled"`, 1), "", []string{"initrd-reset"}, "the plan", 2},
		{"no device", strings.Replace(good, d.device, "/nonexistent", 1), "immutability.mode=disabled", []string{"initrd-reset"}, "the kernel command line", 2},
		{"broken plan", "{", "", []string{"initrd-disabled"}, "the name initrd-disabled", 0},
		{"empty plan", "", "", []string{"initrd-reset", "--mode", "disabled"}, "--mode", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b.t = t
			b.forget()
			b.write(b.plan, tt.plan)
			b.write(b.commandLine, tt.line)
			b.want(exitDone, "initrd-reset: mode disabled, from "+tt.from+"\ninitrd-reset: nothing is touched\n", tt.args...)
			d.same(before)
			got := b.readReport()
			if got.Mode != "disabled" || got.ModeFrom != tt.from || got.Error != "" || len(got.Volumes) != tt.volumes {
				t.Errorf("report = %+v, want disabled from %s, %d volumes", got, tt.from, tt.volumes)
			}
			for _, v := range got.Volumes {
				if v.Outcome != "disabled" {
					t.Errorf("outcome of %s = %s, want disabled", v.Name, v.Outcome)
				}
			}
		})
	}
}

// The lists of a report are never null.
func TestReportHasLists(t *testing.T) {
	b := newBox(t)
	b.want(exitUsage, "plan file: open", "initrd-reset", "--json")
	for _, text := range []string{b.stdout.String(), b.read(b.report)} {
		if !strings.Contains(text, `"volumes": []`) || !strings.Contains(text, `"phases": []`) {
			t.Errorf("report = %s\nwant empty lists", text)
		}
	}
	b.checkWiped(nil)
}
