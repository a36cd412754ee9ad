package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// swap makes a swap area that begins offset pages into a file. Its header is laid
// out as in kernel/power/swap.c: the signature in the last ten bytes of a page.
func (b *box) swap(path string, offset int, signature string) {
	b.t.Helper()
	page := os.Getpagesize()
	text := make([]byte, (offset+4)*page)
	copy(text[(offset+1)*page-10:], signature)
	b.write(path, string(text))
}

func TestHibernation(t *testing.T) {
	const image, none = "S1SUSPEND\x00", "SWAPSPACE2"
	for _, tt := range []struct {
		name, line, path string
		offset           int
		signature        string
		refuses          string // empty: goes on
	}{
		{"by path", "resume=/dev/vda2", "vda2", 0, image, "a hibernated image waits on /dev/vda2"},
		{"by path, plain swap", "resume=/dev/vda2", "vda2", 0, none, ""},
		{"by path, at another page", "resume=/dev/vda2", "vda2", 1, image, ""},
		{"by mapper path", "resume=/dev/mapper/swap", "mapper/swap", 0, image, "waits on /dev/mapper/swap"},
		{"swap file", "resume=/dev/vda1 resume_offset=34816", "vda1", 34816, image, "waits on /dev/vda1"},
		{"swap file, the last offset counts", "resume_offset=1 resume=/dev/vda1 resume_offset=3", "vda1", 3, image, "waits on"},
		{"swap file, plain swap", "resume=/dev/vda1 resume_offset=3", "vda1", 3, none, ""},
		{"UUID", "resume=UUID=0f-a1", "disk/by-uuid/0f-a1", 0, image, "waits on UUID=0f-a1"},
		{"quoted UUID", `resume="UUID=0f-a1"`, "disk/by-uuid/0f-a1", 0, image, "waits on UUID=0f-a1"},
		{"LABEL", "resume=LABEL=swap", "disk/by-label/swap", 0, image, "waits on LABEL=swap"},
		{"PARTUUID", "resume=PARTUUID=12-02", "disk/by-partuuid/12-02", 0, image, "waits on PARTUUID=12-02"},
		{"PARTLABEL", "resume=PARTLABEL=swap", "disk/by-partlabel/swap", 0, image, "waits on PARTLABEL=swap"},
		{"number", "resume=254:2", "block/254:2", 0, image, "waits on 254:2"},
		{"device is not there", "resume=/dev/vdz", "vda2", 0, image, ""},
		{"device ends before", "resume=/dev/vda2 resume_offset=99", "vda2", 0, image, ""},
		{"no resume", "quiet", "vda2", 0, image, ""},
		{"empty resume", "resume=", "vda2", 0, image, ""},
		{"offset is no number", "resume=/dev/vda2 resume_offset=x", "vda2", 0, none, "kernel command line: resume_offset:"},
		{"offset is negative", "resume=/dev/vda2 resume_offset=-3", "vda2", 0, none, "look for a hibernated image"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBox(t)
			b.write(b.commandLine, tt.line+"\n")
			b.swap(filepath.Join(b.devices, tt.path), tt.offset, tt.signature)
			err := checkHibernation(b.machine)
			switch {
			case tt.refuses == "" && err != nil:
				t.Errorf("checkHibernation(%q) = %v, want no refusal", tt.line, err)
			case tt.refuses != "" && (err == nil || !strings.Contains(err.Error(), tt.refuses)):
				t.Errorf("checkHibernation(%q) = %v, want %q", tt.line, err, tt.refuses)
			}
		})
	}
}

// An image that waits stops the whole program, in every mode that writes.
func TestHibernationRefuses(t *testing.T) {
	b := newBox(t)
	d := newDisk(t, b)
	d.day()
	b.boots()
	before := d.look()
	for _, name := range []string{"initrd-reset", "initrd-snapshot-only"} {
		b.write(b.hibernateLocation, "{}")
		b.want(exitFailed, "nothing was touched: a hibernated image waits (EFI variable HibernateLocation)", name, "--device", d.top)
		d.same(before)
		if got := b.readReport(); !strings.Contains(got.Error, "HibernateLocation") || got.Mode != strings.TrimPrefix(name, "initrd-") {
			t.Errorf("report = %+v, want the mode of %s and the refusal", got, name)
		}
		if err := os.Remove(b.hibernateLocation); err != nil {
			t.Fatal(err)
		}
		b.forget()
	}
	b.write(b.commandLine, "resume=UUID=0f-a1 resume_offset=12\n")
	b.swap(filepath.Join(b.devices, "disk/by-uuid/0f-a1"), 12, "S1SUSPEND\x00")
	b.want(exitFailed, "drop it with `mkswap`", "initrd-reset", "--device", d.top)
	d.same(before)
	b.want(exitDone, "nothing is touched", "initrd-disabled", "--report", filepath.Join(t.TempDir(), "report.json"))
	d.same(before)
}
