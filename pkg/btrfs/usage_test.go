package btrfs_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/btrfs"
)

// usageDisk has subvolumes that share data in every way.
func usageDisk(t *testing.T) *disk {
	t.Helper()
	d := newDisk(t)
	d.sh(`
		for v in live other; do btrfs -q subvolume create $v; done
		data() { dd if=/dev/urandom of=$1 bs=64K count=$2 status=none; }
		data live/base 8; data live/second 3; echo small > live/inline; truncate -s 1M live/sparse
		btrfs -q subvolume snapshot -r live old
		data live/new 5; rm live/second
		btrfs -q subvolume snapshot -r live middle
		data live/newest 7; cp --reflink=always live/new live/copy
		cp --reflink=always old/second other/second; data other/own 2
		btrfs -q subvolume create live/inner; data live/inner/f 4; cp --reflink=always live/base live/inner/base`)
	d.sync()
	return d
}

func (d *disk) id(path string) uint64 {
	d.t.Helper()
	info, err := btrfs.ReadInfo(d.open(path))
	must(d.t, err)
	return info.ID
}

// MeasureData against what was written and `btrfs filesystem du`.
func TestMeasureData(t *testing.T) {
	d := usageDisk(t)
	groups := [][]uint64{
		{d.id("old")},
		{d.id("middle")},
		{d.id("live"), d.id("live/inner")},
	}
	var items int64
	got, err := btrfs.MeasureData(t.Context(), d.open(""), groups, func(n int64) { items += n })
	must(t, err)
	if items < 50 {
		t.Errorf("progress was told of %d items", items)
	}
	const k = 64 << 10
	want := []btrfs.Usage{
		{Exclusive: 0, Shared: 11 * k}, // second is in other too
		{Exclusive: 0, Shared: 13 * k},
		{Exclusive: 11 * k, Shared: 13 * k}, // newest, and inner's own file
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("MeasureData (-want +got):\n%s", diff)
	}
	for i, path := range []string{"old", "middle", "live"} {
		// Total, exclusive and shared by each file; a file of several extents is one
		// line, and what is not shared with others is exclusive.
		fields := strings.Fields(d.lastLine(d.sh("btrfs filesystem du -s --raw " + path)))
		if total := got[i].Exclusive + got[i].Shared; path != "live" && fields[0] != strconv.FormatUint(total, 10) {
			t.Errorf("%s holds %d bytes, btrfs filesystem du says %s", path, total, fields[0])
		}
		if exclusive := strconv.FormatUint(got[i].Exclusive, 10); fields[1] != exclusive {
			t.Errorf("%s holds %s bytes alone, btrfs filesystem du says %s", path, exclusive, fields[1])
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = btrfs.MeasureData(ended, d.open(""), groups, nil)
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("MeasureData after the context ended = %v", err)
	}
}

func (d *disk) lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// A deleted subvolume is not listed, also while its space is being freed.
func TestSubvolumes(t *testing.T) {
	d := newDisk(t)
	d.sh(`btrfs -q subvolume create a; btrfs -q subvolume create a/b; btrfs -q subvolume create c; btrfs -q subvolume delete c`)
	d.sync()
	got, err := btrfs.Subvolumes(d.open(""))
	must(t, err)
	want := []uint64{btrfs.TopLevelID, d.id("a"), d.id("a/b")}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Subvolumes (-want +got):\n%s", diff)
	}
}

// ReadQuotas against btrfs-progs; without quotas there is nothing to read.
func TestReadQuotas(t *testing.T) {
	d := usageDisk(t)
	got, err := btrfs.ReadQuotas(d.open(""))
	must(t, err)
	if got != nil {
		t.Errorf("ReadQuotas without quotas = %v, want nil", got)
	}
	d.sh(`btrfs quota enable . && btrfs quota rescan -w . && sync -f .`)
	d.sync()
	got, err = btrfs.ReadQuotas(d.open(""))
	must(t, err)
	want := map[uint64]btrfs.Usage{}
	for line := range strings.Lines(d.sh("btrfs qgroup show --raw --sync .")) {
		fields := strings.Fields(line)
		if len(fields) < 3 || !strings.HasPrefix(fields[0], "0/") {
			continue
		}
		number := func(s string) uint64 {
			n, err := strconv.ParseUint(s, 10, 64)
			must(t, err)
			return n
		}
		referenced, exclusive := number(fields[1]), number(fields[2])
		want[number(fields[0][2:])] = btrfs.Usage{Exclusive: exclusive, Shared: referenced - exclusive}
	}
	if len(want) < 5 {
		t.Fatalf("btrfs qgroup show names %d groups, want 5 at least", len(want))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ReadQuotas (-want +got):\n%s", diff)
	}
	if u := got[d.id("live")]; u.Exclusive < 7*64<<10 {
		t.Errorf("live holds %d bytes alone, want 7 blocks of 64 KiB at least", u.Exclusive)
	}
}

func FuzzDecodeQuota(f *testing.F) {
	f.Add(make([]byte, 40))
	f.Add(make([]byte, 23))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := btrfs.DecodeQuotaFlags(b)
		isItemError(t, "DecodeQuotaFlags", err)
		u, err := btrfs.DecodeQuotaInfo(b)
		isItemError(t, "DecodeQuotaInfo", err)
		if (err == nil) != (len(b) >= 40) {
			t.Errorf("DecodeQuotaInfo(%d bytes) = %+v, %v", len(b), u, err)
		}
	})
}
