package pci

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Holder is a process that has device nodes open.
type Holder struct {
	PID int `json:"pid"`
	// Start is when the process began, in clock ticks since the boot; with the
	// PID it names one process for good.
	Start uint64 `json:"start"`
	// Name is the command's name as the kernel keeps it (15 bytes).
	Name string `json:"name"`
	// Unit is the system service it belongs to, "" for a user's process.
	Unit string `json:"unit,omitempty"`
	// Nodes are the device nodes that it holds, sorted.
	Nodes []string `json:"nodes"`
}

// LetsGo tells whether the holder drops the device by itself when it goes:
// sound servers watch the control node of each card for as long as it is
// there, and the kernel tells them when it leaves.
func (h Holder) LetsGo() bool {
	return !slices.ContainsFunc(h.Nodes, func(node string) bool {
		return !strings.HasPrefix(node, "/dev/snd/controlC")
	})
}

// String names the process for a person.
func (h Holder) String() string {
	text := fmt.Sprintf("%s (process %d", h.Name, h.PID)
	if h.Unit != "" {
		text += ", service " + h.Unit
	}
	return text + "): " + strings.Join(h.Nodes, " ")
}

// Holders finds the processes that have one of the nodes open or mapped. A
// process that ends while it is looked at holds nothing. What the caller may
// not look into (who is not root sees only their own) is counted as hidden.
func Holders(root *os.Root, nodes []string) (holders []Holder, hidden int, err error) {
	names, err := list(root, "proc")
	if err != nil {
		return nil, 0, fmt.Errorf("read the processes: %w", err)
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		holder, err := readHolder(root, pid, nodes)
		switch {
		case isGone(err):
		case errors.Is(err, fs.ErrPermission):
			hidden++
		case err != nil:
			return nil, 0, fmt.Errorf("process %d: %w", pid, err)
		case len(holder.Nodes) > 0:
			holders = append(holders, holder)
		}
	}
	slices.SortFunc(holders, func(a, b Holder) int { return a.PID - b.PID })
	return holders, hidden, nil
}

func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

func readHolder(root *os.Root, pid int, nodes []string) (Holder, error) {
	h := Holder{PID: pid}
	dir := path.Join("proc", strconv.Itoa(pid))
	open, err := openNodes(root, dir)
	if err != nil {
		return h, err
	}
	for _, node := range open {
		if slices.Contains(nodes, node) {
			h.Nodes = append(h.Nodes, node)
		}
	}
	if len(h.Nodes) == 0 {
		return h, nil
	}
	slices.Sort(h.Nodes)
	h.Nodes = slices.Compact(h.Nodes)
	text, err := root.ReadFile(path.Join(dir, "stat"))
	if err != nil {
		return h, err
	}
	stat, err := ParseStat(text)
	if err != nil {
		return h, err
	}
	h.Name, h.Start = stat.Name, stat.Start
	cgroup, err := root.ReadFile(path.Join(dir, "cgroup"))
	if err != nil && !isGone(err) {
		return h, err
	}
	h.Unit = ParseUnit(cgroup)
	return h, nil
}

// openNodes are the files below /dev that a process has open, by descriptor
// or by a mapping that outlived its descriptor.
func openNodes(root *os.Root, dir string) ([]string, error) {
	var nodes []string
	descriptors, err := list(root, path.Join(dir, "fd"))
	if err != nil {
		return nil, err
	}
	for _, fd := range descriptors {
		target, err := root.Readlink(path.Join(dir, "fd", fd))
		if isGone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, target)
	}
	maps, err := root.ReadFile(path.Join(dir, "maps"))
	if err != nil && !isGone(err) {
		return nil, err
	}
	for line := range bytes.Lines(maps) {
		if at := bytes.Index(line, []byte(" /dev/")); at >= 0 {
			nodes = append(nodes, strings.TrimSpace(string(line[at:])))
		}
	}
	return nodes, nil
}

// Stat is what /proc/PID/stat tells.
type Stat struct {
	// Name is the command's name, at most 15 bytes.
	Name string
	// State is one letter; Z is a process that has ended.
	State byte
	// Start is when it began, in clock ticks since the boot.
	Start uint64
}

// ParseStat reads /proc/PID/stat (proc_pid_stat(5)). The name may hold
// anything, brackets included; the last closing one ends it.
func ParseStat(text []byte) (Stat, error) {
	opening, closing := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if opening < 0 || closing < opening {
		return Stat{}, fmt.Errorf("stat %q: no name in brackets", text)
	}
	fields := bytes.Fields(text[closing+1:])
	const startTime = 22 - 3 // the third field follows the name
	if len(fields) <= startTime {
		return Stat{}, fmt.Errorf("stat %q: only %d fields", text, len(fields)+2)
	}
	start, err := strconv.ParseUint(string(fields[startTime]), 10, 64)
	if err != nil {
		return Stat{}, fmt.Errorf("stat %q: start time: %w", text, err)
	}
	return Stat{Name: string(text[opening+1 : closing]), State: fields[0][0], Start: start}, nil
}

// ParseUnit is the system service that a process belongs to by
// /proc/PID/cgroup, "" for none. What runs below a user's manager or in a
// session is no system service.
func ParseUnit(cgroup []byte) string {
	for line := range strings.Lines(string(cgroup)) {
		where, found := strings.CutPrefix(strings.TrimSpace(line), "0::/")
		if !found {
			continue
		}
		parts := strings.Split(where, "/")
		if parts[0] != "system.slice" {
			return ""
		}
		for _, part := range parts[1:] {
			if strings.HasSuffix(part, ".service") {
				return part
			}
		}
	}
	return ""
}
