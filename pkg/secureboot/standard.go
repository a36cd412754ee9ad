package secureboot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// entryPattern is how NixOS names the entries of systemd-boot.
var entryPattern = regexp.MustCompile(`^nixos-(?:.*-)?generation-(\d+)[-.].*conf$|^nixos-(?:.*-)?generation-(\d+)\.conf$`)

// InspectStandard looks at an ESP as systemd-boot without Secure Boot needs it:
// the loader, and entries whose files are there.
func InspectStandard(esp string) (Report, error) {
	report := Report{Files: []File{}, Generations: []int{}, Problems: []string{}}
	names, err := programs(esp)
	if err != nil {
		return report, err
	}
	loaders := 0
	for _, name := range names {
		if roleOf(name) != Loader {
			continue
		}
		loaders++
		f := File{Path: name, Role: Loader}
		if _, err := OpenImage(filepath.Join(esp, name)); err != nil {
			f.Problem = err.Error()
			report.Problems = append(report.Problems, name+": "+f.Problem)
		}
		report.Files = append(report.Files, f)
	}
	if loaders == 0 {
		report.Problems = append(report.Problems, "systemd-boot is not on the EFI partition")
	}
	entries, err := standardEntries(esp)
	if err != nil {
		return report, err
	}
	for _, entry := range entries {
		report.Generations = append(report.Generations, entry.generation)
		for _, name := range entry.files {
			f := File{Path: name, Role: Payload}
			if _, err := os.Stat(filepath.Join(esp, name)); err != nil {
				f.Problem = fmt.Sprintf("missing, and %s needs it", entry.path)
				report.Problems = append(report.Problems, name+": "+f.Problem)
			}
			report.Files = append(report.Files, f)
		}
	}
	if len(entries) == 0 {
		report.Problems = append(report.Problems, "no entry of a NixOS generation is on the EFI partition")
	}
	slices.SortFunc(report.Generations, func(a, b int) int { return b - a })
	report.Generations = slices.Compact(report.Generations)
	return report, nil
}

// entry is an entry of NixOS's in the boot menu of systemd-boot (Boot Loader
// Specification, type 1).
type entry struct {
	path       string // relative to the ESP
	generation int
	files      []string
}

func standardEntries(esp string) ([]entry, error) {
	folder := filepath.Join(esp, "loader", "entries")
	list, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var entries []entry
	for _, item := range list {
		match := entryPattern.FindStringSubmatch(item.Name())
		if match == nil {
			continue
		}
		number, err := strconv.Atoi(match[1] + match[2])
		if err != nil {
			continue
		}
		content, err := os.ReadFile(filepath.Join(folder, item.Name()))
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{
			path:       filepath.Join("loader", "entries", item.Name()),
			generation: number, files: entryFiles(string(content)),
		})
	}
	return entries, nil
}

// entryFiles are the files that an entry loads.
func entryFiles(text string) []string {
	var files []string
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name := espPath([]byte(strings.TrimSpace(value))); name != "" && (key == "linux" || key == "initrd" || key == "efi") {
			files = append(files, name)
		}
	}
	return files
}

// Stale are the files that one way of booting leaves behind for the other,
// relative to the ESP, the entries first: a menu must not show what cannot
// boot. Files that the way in use needs are never among them.
func Stale(esp string, secure bool) ([]string, error) {
	if secure {
		return staleEntries(esp)
	}
	return staleStubs(esp)
}

// staleEntries are systemd-boot's entries, and kernels that only they load.
func staleEntries(esp string) ([]string, error) {
	entries, err := standardEntries(esp)
	if err != nil {
		return nil, err
	}
	needed, err := stubPayloads(esp)
	if err != nil {
		return nil, err
	}
	var stale, files []string
	for _, e := range entries {
		stale = append(stale, e.path)
		files = append(files, e.files...)
	}
	return append(stale, existing(esp, files, needed)...), nil
}

// staleStubs are lanzaboote's stubs, and kernels that only they load.
func staleStubs(esp string) ([]string, error) {
	names, err := programs(esp)
	if err != nil {
		return nil, err
	}
	entries, err := standardEntries(esp)
	if err != nil {
		return nil, err
	}
	needed := map[string]bool{}
	for _, e := range entries {
		for _, name := range e.files {
			needed[strings.ToLower(name)] = true
		}
	}
	var stale, files []string
	for _, name := range names {
		if roleOf(name) != Generation {
			continue
		}
		stale = append(stale, name)
		files = append(files, payloadsOf(esp, name)...)
	}
	return append(stale, existing(esp, files, needed)...), nil
}

// stubPayloads are the files that stubs need, in lower case.
func stubPayloads(esp string) (map[string]bool, error) {
	names, err := programs(esp)
	if err != nil {
		return nil, err
	}
	needed := map[string]bool{}
	for _, name := range names {
		if roleOf(name) == Generation {
			for _, payload := range payloadsOf(esp, name) {
				needed[strings.ToLower(payload)] = true
			}
		}
	}
	return needed, nil
}

func payloadsOf(esp, stub string) []string {
	image, err := OpenImage(filepath.Join(esp, stub))
	if err != nil {
		return nil
	}
	s, ok, err := image.Stub()
	if !ok || err != nil {
		return nil
	}
	return []string{s.Kernel, s.Initrd}
}

// existing are the files that are there and that nothing else needs, each once.
func existing(esp string, files []string, needed map[string]bool) []string {
	var rest []string
	for _, name := range files {
		if needed[strings.ToLower(name)] || slices.Contains(rest, name) {
			continue
		}
		if _, err := os.Stat(filepath.Join(esp, name)); err == nil {
			rest = append(rest, name)
		}
	}
	return rest
}
