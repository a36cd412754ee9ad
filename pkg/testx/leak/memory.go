package leak

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"

	"nixos-go/pkg/run"
)

// Invert turns a secret into a form that is not the secret, in place, and back.
// Who hunts through memory must not hold what is hunted.
func Invert(b []byte) {
	for i := range b {
		b[i] ^= 0xff
	}
}

// ReportMemory prints how often each secret stands in the memory of this process, and
// first reads one, the control: what is held has to be found. The secrets are in the
// files NAME.inverted of a folder; the control is in the file held, as it is.
func ReportMemory(dir string, names ...string) error {
	held, err := os.ReadFile(filepath.Join(dir, "held"))
	if err != nil {
		return err
	}
	defer run.Wipe(held)
	for _, name := range append(names, "held") {
		inverted, err := os.ReadFile(filepath.Join(dir, name+".inverted"))
		if err != nil {
			return err
		}
		n, err := InMemory(inverted)
		if err != nil {
			return err
		}
		fmt.Printf("%s: %d times in memory\n", name, n)
	}
	return nil
}

// InMemory counts how often a secret, given inverted, stands in the writable
// memory of this process. What the collector can free is freed first.
func InMemory(inverted []byte) (int, error) {
	for range 3 {
		runtime.GC()
	}
	debug.FreeOSMemory()
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return 0, err
	}
	defer maps.Close()
	memory, err := os.Open("/proc/self/mem")
	if err != nil {
		return 0, err
	}
	defer memory.Close()
	total := 0
	scanner := bufio.NewScanner(maps)
	for scanner.Scan() {
		var start, end int64
		var mode string
		if _, err := fmt.Sscanf(scanner.Text(), "%x-%x %s", &start, &end, &mode); err != nil || !strings.HasPrefix(mode, "rw") {
			continue
		}
		n, err := count(io.NewSectionReader(memory, start, end-start), inverted)
		if err != nil {
			continue // a region that cannot be read, such as a guard page
		}
		total += n
	}
	return total, scanner.Err()
}

// count counts in a region, page by page, without ever holding more of it than
// a window; the window itself lies in memory that is read, too, and is
// inverted at once for that reason.
func count(region *io.SectionReader, inverted []byte) (int, error) {
	const page = 1 << 16
	window := make([]byte, 0, page+len(inverted))
	total := 0
	for offset := int64(0); offset < region.Size(); offset += page {
		window = window[:min(int64(cap(window)), region.Size()-offset)]
		n, err := region.ReadAt(window, offset)
		if err != nil && n == 0 {
			return total, err
		}
		window = window[:n]
		Invert(window)
		for at := 0; at+len(inverted) <= len(window) && at < page; at++ {
			if string(window[at:at+len(inverted)]) == string(inverted) {
				total++
			}
		}
		clear(window[:cap(window)])
	}
	return total, nil
}
