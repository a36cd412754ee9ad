package reset

import (
	"testing"

	"nixos-go/pkg/btrfs"
)

// Immutable and append-only, at every place that a reset or a cleanup changes.
func TestLockedThings(t *testing.T) {
	for _, flag := range []string{"+i", "+a", "+ia"} {
		t.Run(flag, func(t *testing.T) {
			h := newHostile(t)
			lock := func(paths string) string { return "\nchattr " + flag + " " + paths }
			h.sh("@home", `cd alice; mkdir clean; cd clean; echo locked > locked; echo free > free; mkdir -p dir/sub; echo in > dir/sub/in; echo linked > one; ln one two
				mkdir open; echo o > open/o; ln -s free link`+lock("locked one dir/sub dir"))
			h.takeClean()
			h.run(Options{})

			h.bothWays("wiped", `mkdir -p alice/new/sub; echo f > alice/new/sub/f; echo g > alice/g`+lock("alice/new/sub/f alice/new/sub alice/new alice/g"))
			h.bothWays("in the root", `mkdir -p top/sub; echo f > top/sub/f; echo g > g`+lock("top/sub/f top/sub top g"))
			h.bothWays("changed back", `cd alice/clean; chattr -i -a locked one dir/sub dir; echo x >> locked; echo x >> free; echo x > dir/sub/in; echo x > dir/sub/new; echo x > one`+
				lock("locked free dir/sub/in dir/sub/new one"))
			h.bothWays("flags alone", `cd alice/clean; chattr -i -a locked one dir/sub dir`+lock("free open open/o"))
			h.bothWays("another flag", `cd alice/clean; chattr -i -a locked one dir/sub dir; chattr +d locked free dir open`)
			h.bothWays("other metadata", `cd alice/clean; chattr -i -a locked one dir/sub dir; for f in locked free one dir dir/sub open; do chown 5:6 $f; chmod 700 $f; touch $f; setfattr -n user.x -v 1 $f; done`+
				lock("locked free one dir/sub dir open"))
			h.bothWays("another type", `cd alice/clean; chattr -i -a locked one dir/sub dir; rm -r locked free dir; mkdir locked free; echo x > locked/x; echo x > dir`+
				lock("locked/x locked free dir"))
			h.bothWays("brought back", `cd alice/clean; chattr -i -a locked one dir/sub dir; rm -r locked one dir`)
			h.bothWays("brought back into a locked folder", `cd alice/clean; chattr -i -a locked one dir/sub dir; rm -r locked one dir/sub open/o`+lock("dir open ."))
			h.bothWays("all brought back", `cd alice/clean; chattr -i -a locked one dir/sub dir; rm -r ../clean`)
			h.bothWays("in the folder above", `echo new > alice/new; echo x > alice/.bashrc; mkdir -p bob/Documents`+lock("alice bob"))
			unlock := `chattr -R -f -i -a alice/Documents || true; rm -rf alice/Documents; `
			h.bothWays("kept", unlock+`mkdir -p alice/Documents/sub; echo k > alice/Documents/sub/k`+lock("alice/Documents/sub/k alice/Documents/sub alice/Documents"))
			h.bothWays("wiped below a kept folder", unlock+`mkdir -p alice/Documents/tmp/sub; echo k > alice/Documents/k; echo f > alice/Documents/tmp/sub/f`+
				lock("alice/Documents/tmp/sub/f alice/Documents/tmp/sub alice/Documents/tmp alice/Documents/k alice/Documents"))
			h.bothWays("names of a kept file", unlock+`mkdir -p alice/Documents alice/new; echo k > alice/Documents/k; ln alice/Documents/k alice/k; ln alice/Documents/k alice/new/k; ln alice/Documents/k k
				rm -f alice/clean/free; ln alice/Documents/k alice/clean/free`+lock("alice/Documents/k alice/new"))
			h.bothWays("kept names of a locked file of CLEAN", unlock+`mkdir -p alice/Documents; cd alice/clean; chattr -i -a one; ln one ../Documents/one; ln one ../three`+lock("one"))
			h.bothWays("a special file in a locked folder", `mkdir alice/new; mkfifo alice/new/fifo; mknod alice/new/null c 1 3; ln -s OUTSIDE alice/new/link`+lock("alice/new"))
			h.bothWays("subvolumes", unlock+`mkdir -p alice/Documents/x alice/new; for v in alice/Documents/x/moves alice/new/stays alice/top; do btrfs -q subvolume create $v; echo f > $v/f; done`+
				lock("alice/Documents/x/moves/f alice/Documents/x/moves alice/Documents/x alice/new/stays/f alice/new/stays alice/new alice/top"))
		})
	}
}

// A nested subvolume that counts as a folder, with locks on the way to it and in it.
func TestLockedBranch(t *testing.T) {
	h := newHostile(t)
	h.takeClean()
	h.run(Options{})
	for _, way := range []Way{WayChanged, WayFull} {
		h.create("@home/carol" + string(way))
		h.sh("@home/carol"+string(way), `mkdir -p Documents/tmp new/sub; echo k > Documents/k; echo f > new/sub/f; echo g > g; ln Documents/k k; chattr +i Documents/k new/sub/f new/sub new g Documents .`)
		h.syncTop()
		h.boot("a branch", way)
		h.sh("@home/carol"+string(way), `chattr -i .; echo h > h; chattr +i h .`)
		h.syncTop()
		h.boot("its second boot", WayChanged)
	}
}

// The locks that the reset and the cleanup lift for a moment are those of the new
// state alone: history keeps its own.
func TestLocksInHistory(t *testing.T) {
	h := newHostile(t)
	h.sh("@home", `echo c > alice/c; chattr +i alice/c`)
	h.takeClean()
	h.sh("@home", `mkdir -p alice/new; echo f > alice/new/f; chattr -i alice/c; rm alice/c; chattr +i alice/new/f alice/new alice`)
	h.boot("locked", WayFull)
	for path, want := range map[string]uint32{
		snapshotOf("@home", NamePrevious) + "/alice/new/f": btrfs.FlagImmutable,
		snapshotOf("@home", NamePrevious) + "/alice/new":   btrfs.FlagImmutable,
		snapshotOf("@home", NamePrevious) + "/alice":       btrfs.FlagImmutable,
		snapshotOf("@home", NameClean) + "/alice/c":        btrfs.FlagImmutable,
		"@home/alice/c": btrfs.FlagImmutable,
		"@home/alice":   0,
	} {
		f := h.hold(h.path(path))
		got, err := btrfs.Flags(f)
		f.Close()
		if err != nil || got != want {
			t.Errorf("flags of %s = %#x, %v, want %#x", path, got, err, want)
		}
	}
}
