package reset

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// No component of a path is followed through a symlink, and none leads out.
func TestOpenBeneath(t *testing.T) {
	root := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(root, "in/dir/sub"), 0o700))
	must(t, os.MkdirAll(filepath.Join(root, "out/sub"), 0o700))
	for name, target := range map[string]string{
		"in/up": "../out", "in/inside": "dir", "in/absolute": filepath.Join(root, "out"), "in/self": "self", "in/dot": ".", "in/magic": "/proc/self/cwd",
	} {
		must(t, os.Symlink(target, filepath.Join(root, name)))
	}
	must(t, unix.Mkfifo(filepath.Join(root, "in/fifo"), 0o600))
	must(t, os.WriteFile(filepath.Join(root, "in/file"), nil, 0o600))
	dir, err := os.Open(filepath.Join(root, "in"))
	must(t, err)
	defer dir.Close()
	for _, tt := range []struct {
		path string
		want error
	}{
		{"", nil},
		{"/", nil},
		{"dir", nil},
		{"/dir/sub", nil},
		{"none", unix.ENOENT},
		{"none/sub", unix.ENOENT},
		{"up", unix.ELOOP},
		{"up/sub", unix.ELOOP},
		{"inside", unix.ELOOP},
		{"inside/sub", unix.ELOOP},
		{"dir/sub/../../inside/sub", unix.ELOOP},
		{"absolute/sub", unix.ELOOP},
		{"self", unix.ELOOP},
		{"dot/dir", unix.ELOOP},
		{"magic", unix.ELOOP},
		{"..", unix.EXDEV},
		{"../out", unix.EXDEV},
		{"dir/../../out", unix.EXDEV},
		{"file", unix.ENOTDIR},
		{"fifo", unix.ENOTDIR},
		{"file/sub", unix.ENOTDIR},
		{strings.Repeat("d", 256), unix.ENAMETOOLONG},
		{strings.Repeat("d", 5000), unix.ENAMETOOLONG},
	} {
		f, err := openDir(dir, tt.path)
		if err == nil {
			f.Close()
		}
		// O_DIRECTORY and O_NOFOLLOW both forbid a symlink at the end.
		link := errors.Is(tt.want, unix.ELOOP) && errors.Is(err, unix.ENOTDIR)
		if !errors.Is(err, tt.want) && !link {
			t.Errorf("openDir(%.40q) = %v, want %v", tt.path, err, tt.want)
		}
	}
}

// Beyond PATH_MAX, a symlink in the middle is refused all the same.
func TestOpenBeneathLongPaths(t *testing.T) {
	root := t.TempDir()
	name := strings.Repeat("n", 250)
	bottom := deep(t, root, name, 40)
	defer bottom.Close()
	must(t, unix.Symlinkat(root, int(bottom.Fd()), "link"))
	must(t, unix.Mkdirat(int(bottom.Fd()), "dir", 0o700))
	dir, err := os.Open(root)
	must(t, err)
	defer dir.Close()
	long := strings.Repeat(name+"/", 40)
	f, err := openDir(dir, long+"dir")
	must(t, err)
	f.Close()
	if f, err := openDir(dir, long+"link/"+long+"dir"); !errors.Is(err, unix.ELOOP) {
		t.Errorf("openDir through a symlink beyond PATH_MAX = %v, %v, want %v", f, err, unix.ELOOP)
	}
}
