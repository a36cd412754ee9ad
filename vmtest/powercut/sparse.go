package powercut

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// chunkSize is how much is compared or copied at a time, in bytes.
const chunkSize = 256 << 10

// extents calls visit for each run of data of f within [from, to), with its
// bounds; what it leaves out are holes, which read as zeros.
func extents(f *os.File, from, to int64, visit func(from, to int64) error) error {
	for from < to {
		start, err := unix.Seek(int(f.Fd()), from, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // a hole up to the end
			return nil
		}
		if err != nil {
			return &os.PathError{Op: "seek data", Path: f.Name(), Err: err}
		}
		if start >= to {
			return nil
		}
		end, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return &os.PathError{Op: "seek hole", Path: f.Name(), Err: err}
		}
		end = min(end, to)
		if err := visit(start, end); err != nil {
			return err
		}
		from = end
	}
	return nil
}

// punch makes [from, to) of f a hole.
func punch(f *os.File, from, to int64) error {
	const mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	if err := unix.Fallocate(int(f.Fd()), mode, from, to-from); err != nil {
		return &os.PathError{Op: "punch hole in", Path: f.Name(), Err: err}
	}
	return nil
}

// chunks calls visit for the pieces of [from, to), none longer than chunkSize.
func chunks(from, to int64, visit func(from, to int64) error) error {
	for from < to {
		end := min(from+chunkSize, to)
		if err := visit(from, end); err != nil {
			return err
		}
		from = end
	}
	return nil
}

// copySparse makes dst hold exactly what src holds, size bytes, holes included.
// Only what differs is written, so putting an image back after a check costs a
// comparison of its data and little more.
func copySparse(dst, src *os.File, size int64) error {
	if err := dst.Truncate(size); err != nil {
		return err
	}
	want, have := make([]byte, chunkSize), make([]byte, chunkSize)
	copyChunk := func(from, to int64) error {
		want, have := want[:to-from], have[:to-from]
		if _, err := src.ReadAt(want, from); err != nil {
			return err
		}
		if _, err := dst.ReadAt(have, from); err != nil {
			return err
		}
		if bytes.Equal(want, have) {
			return nil
		}
		_, err := dst.WriteAt(want, from)
		return err
	}
	clearHole := func(from, to int64) error {
		return extents(dst, from, to, func(from, to int64) error { return punch(dst, from, to) })
	}
	done := int64(0)
	err := extents(src, 0, size, func(from, to int64) error {
		if err := clearHole(done, from); err != nil {
			return err
		}
		done = to
		return chunks(from, to, copyChunk)
	})
	if err != nil {
		return err
	}
	return clearHole(done, size)
}

// copyFile makes a sparse copy of a file under a new name.
func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	dst, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(copySparse(dst, src, info.Size()), dst.Close())
}

// ErrDiffer says that two images are not the same.
var ErrDiffer = errors.New("the images differ")

// compare checks that two files hold the same size bytes. Holes are zeros.
func compare(a, b *os.File, size int64) error {
	one, two := make([]byte, chunkSize), make([]byte, chunkSize)
	compareChunk := func(from, to int64) error {
		one, two := one[:to-from], two[:to-from]
		for _, r := range []struct {
			f *os.File
			b []byte
		}{{a, one}, {b, two}} {
			if _, err := io.ReadFull(io.NewSectionReader(r.f, from, to-from), r.b); err != nil {
				return fmt.Errorf("read %s at byte %d: %w", r.f.Name(), from, err)
			}
		}
		for i := range one {
			if one[i] != two[i] {
				return fmt.Errorf("%w: %s and %s at byte %d", ErrDiffer, a.Name(), b.Name(), from+int64(i))
			}
		}
		return nil
	}
	for _, f := range []*os.File{a, b} {
		err := extents(f, 0, size, func(from, to int64) error { return chunks(from, to, compareChunk) })
		if err != nil {
			return err
		}
	}
	return nil
}
