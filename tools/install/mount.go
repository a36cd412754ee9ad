package install

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/run"
)

// isMounted tells whether a directory is a mount point.
func isMounted(files run.Files, dir string) (bool, error) {
	f, err := files.Open(btrfs.MountInfo)
	if err != nil {
		return false, err
	}
	defer f.Close()
	points, err := btrfs.ParseMountInfo(f)
	return slices.ContainsFunc(points, func(p btrfs.MountPoint) bool { return p.Path == dir }), err
}

// parseSwaps lists the files and devices of /proc/swaps (proc_swaps(5)): the
// first field of each line after the first.
func parseSwaps(r io.Reader) ([]string, error) {
	var names []string
	lines := bufio.NewScanner(r)
	for first := true; lines.Scan(); first = false {
		if fields := strings.Fields(lines.Text()); !first && len(fields) > 0 {
			names = append(names, btrfs.UnescapeOctal(fields[0]))
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
