package powercut

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// sparseFile makes a file of size bytes with data at some blocks of 4096 bytes.
func sparseFile(tb testing.TB, size int64, blocks map[int64]byte) *os.File {
	tb.Helper()
	f, err := os.Create(filepath.Join(tb.TempDir(), "sparse"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		tb.Fatal(err)
	}
	for block, b := range blocks {
		if _, err := f.WriteAt(bytes.Repeat([]byte{b}, 4096), block*4096); err != nil {
			tb.Fatal(err)
		}
	}
	return f
}

func TestCopySparse(t *testing.T) {
	const blocks = 200 // more than one chunk
	layout := rapid.MapOfN(rapid.Int64Range(0, blocks-1), rapid.Byte(), 0, 40)
	rapid.Check(t, func(rt *rapid.T) {
		src := sparseFile(t, blocks*4096, layout.Draw(rt, "src"))
		dst := sparseFile(t, rapid.Int64Range(0, 2*blocks*4096).Draw(rt, "dst size"), layout.Draw(rt, "dst"))
		if err := copySparse(dst, src, blocks*4096); err != nil {
			rt.Fatalf("copySparse = %v", err)
		}
		want, err := os.ReadFile(src.Name())
		if err != nil {
			rt.Fatal(err)
		}
		got, err := os.ReadFile(dst.Name())
		if err != nil {
			rt.Fatal(err)
		}
		if !bytes.Equal(want, got) {
			rt.Fatalf("copySparse: the files differ")
		}
		if err := compare(dst, src, blocks*4096); err != nil {
			rt.Fatalf("compare = %v", err)
		}
	})
}

func TestCopySparseStaysSparse(t *testing.T) {
	const size = 64 << 20
	src := sparseFile(t, size, map[int64]byte{5: 'a', 9000: 'b'})
	dst := sparseFile(t, size, map[int64]byte{1: 'x', 5: 'y', 12000: 'z'})
	if err := copySparse(dst, src, size); err != nil {
		t.Fatalf("copySparse = %v", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(dst.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if used := st.Blocks * 512; used > 1<<20 {
		t.Errorf("copySparse left %d bytes in use, want two blocks and little more", used)
	}
}

func TestCompare(t *testing.T) {
	a := sparseFile(t, 1<<20, map[int64]byte{3: 'a', 4: 0})
	same := sparseFile(t, 1<<20, map[int64]byte{3: 'a', 100: 0})
	if err := compare(a, same, 1<<20); err != nil {
		t.Errorf("compare(zeros and holes) = %v, want nil", err)
	}
	other := sparseFile(t, 1<<20, map[int64]byte{3: 'a', 255: 'x'})
	for _, pair := range [][2]*os.File{{a, other}, {other, a}} {
		if err := compare(pair[0], pair[1], 1<<20); !errors.Is(err, ErrDiffer) {
			t.Errorf("compare(different) = %v, want %v", err, ErrDiffer)
		}
	}
	short := sparseFile(t, 4096, nil)
	if err := compare(a, short, 1<<20); err == nil {
		t.Error("compare(short file) = nil, want an error")
	}
}
