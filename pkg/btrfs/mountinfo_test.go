package btrfs

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseMountInfo(t *testing.T) {
	const text = "24 1 0:22 /@root / rw,noatime shared:1 master:2 - btrfs /dev/mapper/root rw,subvol=/@root\n" +
		`30 24 0:30 /a\011b /mnt/My\040Disk\134x rw - ext4 /dev/disk\040one rw` + "\n" +
		"31 24 0:31 / /short rw\n32\n\n" +
		`33 24 0:32 / /odd\9\1 rw - fuse.x none rw`
	want := []MountPoint{
		{Root: "/@root", Path: "/", Type: "btrfs", Source: "/dev/mapper/root"},
		{Root: "/a\tb", Path: `/mnt/My Disk\x`, Type: "ext4", Source: "/dev/disk one"},
		{Root: "/", Path: `/odd\9\1`, Type: "fuse.x", Source: "none"},
	}
	got, err := ParseMountInfo(strings.NewReader(text))
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("ParseMountInfo: %v (-want +got):\n%s", err, diff)
	}
}

func TestUnescapeOctal(t *testing.T) {
	for text, want := range map[string]string{
		``: ``, `a\040b`: "a b", `\134040`: `\040`, `\04`: `\04`, `\400`: `\400`, `x\012`: "x\n", `\0401`: " 1",
	} {
		if got := UnescapeOctal(text); got != want {
			t.Errorf("UnescapeOctal(%q) = %q, want %q", text, got, want)
		}
	}
}

func FuzzParseMountInfo(f *testing.F) {
	f.Add(`30 24 0:30 / /mnt/a\040b rw shared:1 - ext4 x rw`)
	f.Fuzz(func(t *testing.T, text string) {
		points, err := ParseMountInfo(strings.NewReader(text))
		if err == nil && len(points) > strings.Count(text, "\n")+1 {
			t.Errorf("%q gives %d mount points", text, len(points))
		}
		for _, p := range points {
			if p.Path == "" || p.Root == "" || p.Type == "" || p.Source == "" {
				t.Errorf("%q gives %+v", text, p)
			}
		}
	})
}
