package secureboot

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// bootFolders are the folders of an ESP that a change of the boot loader
// touches.
var bootFolders = []string{"EFI", "loader"}

// Manifest is what the boot files of an ESP were: path to SHA-256, in
// hexadecimal.
type Manifest map[string]string

// Snapshot copies the boot files of an ESP to a folder, which must not exist,
// and tells what they were. The copy is on disk when it returns.
func Snapshot(esp, folder string) (Manifest, error) {
	if err := os.Mkdir(folder, 0o700); err != nil {
		return nil, err
	}
	manifest := Manifest{}
	err := eachFile(esp, func(name string) error {
		to := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		if err := replaceFile(filepath.Join(esp, name), to); err != nil {
			return err
		}
		sum, err := HashFile(to)
		manifest[name] = hex.EncodeToString(sum)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("copy the boot files: %w", err)
	}
	return manifest, nil
}

// Restore makes the boot files of an ESP what they were: changed and missing
// ones are written back, ones that were not there are removed. Each file is
// replaced in one step, and the boot loaders come last, when all that they
// load is there: whenever it is cut off, the machine boots one or the other.
func Restore(esp, folder string, manifest Manifest) error {
	names := make([]string, 0, len(manifest))
	for name := range manifest {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if d := order(a) - order(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	for _, name := range names {
		if err := restoreFile(esp, folder, name, manifest[name]); err != nil {
			return fmt.Errorf("put %s back: %w", name, err)
		}
	}
	var extra []string
	err := eachFile(esp, func(name string) error {
		if _, known := manifest[name]; !known {
			extra = append(extra, name)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look for new boot files: %w", err)
	}
	return Remove(esp, extra)
}

// order puts kernels first, then the menu, then the loaders.
func order(name string) int {
	switch {
	case loaderNames[strings.ToLower(name)]:
		return 2
	case isBelow(name, "loader"), isBelow(name, "EFI/Linux"):
		return 1
	default:
		return 0
	}
}

func restoreFile(esp, folder, name, want string) error {
	sum, err := HashFile(filepath.Join(esp, name))
	if err == nil && hex.EncodeToString(sum) == want {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	from := filepath.Join(folder, name)
	sum, err = HashFile(from)
	if err != nil {
		return err
	}
	if hex.EncodeToString(sum) != want {
		return errors.New("its copy is damaged")
	}
	if err := os.MkdirAll(filepath.Dir(filepath.Join(esp, name)), 0o755); err != nil {
		return err
	}
	return replaceFile(from, filepath.Join(esp, name))
}

// Remove removes files of an ESP; missing ones are no error.
func Remove(esp string, names []string) error {
	for _, name := range names {
		if err := os.Remove(filepath.Join(esp, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := syncFolder(filepath.Dir(filepath.Join(esp, name))); err != nil {
			return err
		}
	}
	return nil
}

// eachFile calls do for every boot file, by its path relative to the ESP.
func eachFile(esp string, do func(name string) error) error {
	for _, folder := range bootFolders {
		err := filepath.WalkDir(filepath.Join(esp, folder), func(name string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			relative, err := filepath.Rel(esp, name)
			if err != nil {
				return err
			}
			return do(relative)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// replaceFile copies a file over another in one step. FAT has neither owners
// nor modes, so none are set, unlike in [atomicfile.Write].
func replaceFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	temporary := to + ".new"
	out, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temporary)
		}
	}()
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return err
	}
	if err = os.Rename(temporary, to); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(to))
}

func syncFolder(name string) error {
	folder, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer folder.Close()
	return folder.Sync()
}

// SameFiles tells whether an ESP's boot files are what a manifest says.
func SameFiles(esp string, manifest Manifest) (bool, error) {
	seen := 0
	same := true
	err := eachFile(esp, func(name string) error {
		seen++
		sum, err := HashFile(filepath.Join(esp, name))
		if err != nil {
			return err
		}
		want, err := hex.DecodeString(manifest[name])
		if err != nil {
			return err
		}
		same = same && bytes.Equal(sum, want)
		return nil
	})
	return same && seen == len(manifest), err
}
