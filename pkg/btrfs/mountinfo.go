package btrfs

import (
	"bufio"
	"io"
	"strconv"
	"strings"
)

// MountInfo is the list of what is mounted in this mount namespace.
const MountInfo = "/proc/self/mountinfo"

// MountPoint is a line of [MountInfo].
type MountPoint struct {
	// Root is the path in the file system that is mounted: of a subvolume, its path
	// below the top level.
	Root string
	// Path is where it is mounted.
	Path string
	// Type is the name of the file system's driver.
	Type string
	// Source is the device, or what else the driver calls it.
	Source string
}

// ParseMountInfo reads proc_pid_mountinfo(5), in the order of mounting: what comes
// later covers what is mounted at the same path. Lines of another form are passed over.
//
//	36 35 0:33 /@root / rw,noatime shared:1 - btrfs /dev/mapper/root rw,…
func ParseMountInfo(r io.Reader) ([]MountPoint, error) {
	var points []MountPoint
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		where, what, found := strings.Cut(lines.Text(), " - ")
		mount, fs := strings.Fields(where), strings.Fields(what)
		if !found || len(mount) < 5 || len(fs) < 2 {
			continue
		}
		points = append(points, MountPoint{
			Root: UnescapeOctal(mount[3]), Path: UnescapeOctal(mount[4]), Type: fs[0], Source: UnescapeOctal(fs[1]),
		})
	}
	return points, lines.Err()
}

// UnescapeOctal undoes how the files of /proc write blanks, tabs, newlines and
// backslashes in names: as \040 and the like.
func UnescapeOctal(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+3 < len(text) {
			if code, err := strconv.ParseUint(text[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(code))
				i += 3
				continue
			}
		}
		b.WriteByte(text[i])
	}
	return b.String()
}
