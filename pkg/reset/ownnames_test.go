package reset

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

func TestHostileOwnNames(t *testing.T) {
	h := newHostile(t)
	h.takeClean()
	h.run(Options{})
	makes := map[string]string{
		"file":                           "echo x > NAME",
		"symlink":                        "ln -s OUTSIDE/file NAME",
		"symlink to directory":           "ln -s OUTSIDE NAME",
		"fifo":                           "mkfifo NAME",
		"device":                         "mknod NAME c 1 3",
		"directory":                      "mkdir -p NAME/Documents/tmp NAME/sub; echo > NAME/sub/file; ln -s OUTSIDE NAME/sub/link",
		"subvolume":                      "btrfs -q subvolume create NAME; echo x > NAME/file",
		"directory with subvolumes":      "mkdir NAME; btrfs -q subvolume create NAME/Documents; btrfs -q subvolume create NAME/other; echo > NAME/Documents/file",
		"name of a kept file":            "mkdir -p alice/Documents; echo kept > alice/Documents/k; ln -f alice/Documents/k NAME",
		"name of an immutable kept file": "mkdir -p alice/Documents; rm -f alice/Documents/i; echo kept > alice/Documents/i; ln alice/Documents/i NAME; chattr +i alice/Documents/i",
		"immutable file":                 "echo x > NAME; chattr +i NAME",
		"immutable directory":            "mkdir NAME; echo x > NAME/file; chattr +i NAME NAME/file",
		"append-only file":               "echo x > NAME; chattr +a NAME",
	}
	for _, what := range slices.Sorted(maps.Keys(makes)) {
		script := makes[what]
		for _, name := range []string{ReadyName, TrashName} {
			for _, dir := range []string{"", "alice/Documents/"} {
				at := dir + name
				let := h.bothWays
				if dir != "" {
					let = h.shortWay // nothing is special about it there
				}
				let(what+" at "+at, `mkdir -p alice/Documents; chattr -R -i -a `+at+` 2>/dev/null || true; chattr -i -a alice/Documents/* 2>/dev/null || true; rm -rf `+at+`; `+strings.ReplaceAll(script, "NAME", at))
			}
		}
	}
}

func TestHostileRecord(t *testing.T) {
	forged := Record{
		Version: recordVersion, Revision: 1 << 60, Rules: RuleSet{Keep: []string{"/*"}}, Effective: []RuleSet{{Keep: []string{"/*"}}},
	}
	for _, tt := range []struct {
		name  string
		boots int
		way   Way
		owner int
		days  int
	}{
		{"before the first boot", 0, WayFull, 0, 1},
		{"after boots", 2, WayChanged, 0, 3},
		{"after boots, without CURRENT", 2, WayFull, 1000, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHostile(t)
			h.takeClean()
			for range tt.boots {
				h.sh("@home", `date +%N > alice/new`)
				h.boot("boot", map[bool]Way{true: WayFull, false: WayChanged}[!exists(h.path(snapshotOf("@home", NameCurrent)))])
			}
			for range tt.days {
				h.sh("@home", `echo wiped > alice/wiped`)
				record := forged
				for _, name := range []string{NameClean, NamePrevious} {
					if path := snapshotOf("@home", name); exists(h.path(path)) {
						info := h.info(path)
						record.CleanUUID, record.CleanGeneration = info.UUID.String(), info.CTransID
						record.Displaced, record.Restored = h.info("@home").UUID.String(), info.UUID.String()
					}
				}
				text, err := json.Marshal(record)
				must(t, err)
				path := h.path("@home", ReadyName)
				must(t, os.WriteFile(path, text, 0o600))
				must(t, os.Chown(path, tt.owner, tt.owner))
				h.syncTop()
				h.boot("forged", tt.way)
			}
		})
	}
}

// Many subvolumes that move, at paths longer than any that can be noted.
func TestHostileMoves(t *testing.T) {
	h := newHostile(t)
	h.takeClean()
	h.run(Options{})
	h.sh("@home", "mkdir alice/Documents")
	at := deep(t, h.path("@home/alice/Documents"), strings.Repeat("x", 250), 40)
	for i := range 700 {
		must(t, unix.Mkdirat(int(at.Fd()), strconv.Itoa(i), 0o755))
		dir, err := openDir(at, strconv.Itoa(i))
		must(t, err)
		must(t, btrfs.Create(dir, "v"))
		must(t, dir.Close())
	}
	must(t, at.Close())
	h.syncTop()
	h.boot("many moves", WayChanged)
	if h.recordOf("@home/") == nil || h.recordOf(snapshotOf("@home", NameCurrent)) == nil {
		t.Error("the record cannot be read back")
	}
	h.sh("@home", "echo > alice/new")
	h.boot("again", WayChanged)
}

func (m *machine) recordOf(path string) *Record {
	m.t.Helper()
	root := m.hold(m.path(path))
	defer root.Close()
	return readRecordOf(root)
}
