package install

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"nixos-go/pkg/run"
)

// isMounted tells whether a directory is a mount point.
func isMounted(files run.Files, dir string) (bool, error) {
	f, err := files.Open("/proc/self/mountinfo")
	if err != nil {
		return false, err
	}
	defer f.Close()
	points, err := parseMountInfo(f)
	if err != nil {
		return false, err
	}
	if slices.Contains(points, dir) {
		return true, nil
	}
	return false, nil
}

// parseMountInfo lists the mount points of proc_pid_mountinfo(5): the fifth
// field, in which a blank, tab, newline and backslash stand as octal numbers.
func parseMountInfo(r io.Reader) ([]string, error) {
	var points []string
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 {
			points = append(points, unescape(fields[4]))
		}
	}
	return points, lines.Err()
}

// unescape reads \040 and the like.
func unescape(text string) string {
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

// parseSwaps lists the files and devices of /proc/swaps (proc_swaps(5)): the
// first field of each line after the first.
func parseSwaps(r io.Reader) ([]string, error) {
	var names []string
	lines := bufio.NewScanner(r)
	for first := true; lines.Scan(); first = false {
		if fields := strings.Fields(lines.Text()); !first && len(fields) > 0 {
			names = append(names, unescape(fields[0]))
		}
	}
	return names, lines.Err()
}

// unmountTarget undoes what disko mounted.
func (s *session) unmountTarget(ctx context.Context) error {
	swaps, err := s.swapsBelow(s.r.root)
	if err != nil {
		return err
	}
	for _, swap := range swaps {
		if _, err := s.env.Host.Run(ctx, run.New("swapoff", swap)); err != nil {
			return err
		}
	}
	if _, err := s.env.Host.Run(ctx, run.New("umount", "--recursive", s.r.root)); err != nil {
		return err
	}
	if s.r.settings.Disk.Encryption.Enable {
		if _, err := s.env.Host.Run(ctx, run.New("cryptsetup", "close", s.r.settings.Disk.Encryption.Mapper)); err != nil {
			return err
		}
	}
	s.env.UI.Donef("%s is unmounted", s.r.root)
	return nil
}

// swapsBelow are the swap files in use below a directory.
func (s *session) swapsBelow(dir string) ([]string, error) {
	f, err := s.files.Open("/proc/swaps")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := parseSwaps(f)
	var below []string
	for _, swap := range all {
		if strings.HasPrefix(swap, dir+"/") {
			below = append(below, swap)
		}
	}
	return below, err
}
