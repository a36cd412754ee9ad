package powercut

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"nixos-go/vmtest/powercut/writelog"
)

// Files of a recording.
const (
	baseName = "before.img" // the disk before the program ran
	logName  = "writes.log" // what it wrote
	lastName = "after.img"  // the disk that it left
)

// A Recording is what a program wrote to a disk. It can be played by several
// goroutines at once.
type Recording struct {
	Dir  string
	Log  *writelog.Log
	Size int64 // of the disk, in bytes

	base, log *os.File
}

// OpenRecording opens the recording that Record left in a folder.
func OpenRecording(dir string) (_ *Recording, err error) {
	r := &Recording{Dir: dir}
	defer func() {
		if err != nil {
			err = fmt.Errorf("open recording %s: %w", dir, errors.Join(err, r.Close()))
		}
	}()
	if r.base, err = os.Open(filepath.Join(dir, baseName)); err != nil {
		return nil, err
	}
	if r.log, err = os.Open(filepath.Join(dir, logName)); err != nil {
		return nil, err
	}
	base, err := r.base.Stat()
	if err != nil {
		return nil, err
	}
	log, err := r.log.Stat()
	if err != nil {
		return nil, err
	}
	r.Size = base.Size()
	if r.Log, err = writelog.Read(r.log, log.Size()); err != nil {
		return nil, err
	}
	return r, r.Log.Fits(r.Size)
}

// Close closes the files; they stay on disk.
func (r *Recording) Close() error {
	var errs []error
	for _, f := range []*os.File{r.base, r.log} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// Image makes dst the disk as a power cut at point p leaves it. What dst held
// before does not matter, but the nearer it is the faster this goes.
func (r *Recording) Image(dst *os.File, p Point) error {
	if err := r.image(dst, p); err != nil {
		return fmt.Errorf("image of point %v: %w", p, err)
	}
	return nil
}

func (r *Recording) image(dst *os.File, p Point) error {
	list, err := pieces(r.Log.Entries, p)
	if err != nil {
		return err
	}
	if err := copySparse(dst, r.base, r.Size); err != nil {
		return err
	}
	buf := make([]byte, chunkSize)
	for _, piece := range list {
		if err := r.apply(dst, r.Log.Entries[piece.entry], piece.length, buf); err != nil {
			return fmt.Errorf("entry %d: %w", piece.entry, err)
		}
	}
	return nil
}

// apply writes the first length bytes of an entry to the disk.
func (r *Recording) apply(dst *os.File, e writelog.Entry, length int64, buf []byte) error {
	if e.Flags&writelog.Discard != 0 {
		return punch(dst, e.Offset, e.Offset+length)
	}
	return chunks(0, length, func(from, to int64) error {
		if err := r.Log.ReadAt(e, buf[:to-from], from); err != nil {
			return err
		}
		_, err := dst.WriteAt(buf[:to-from], e.Offset+from)
		return err
	})
}

// mountable makes an image that can be mounted beside others of the recording.
func (r *Recording) mountable(image *os.File, p Point) error {
	if err := r.Image(image, p); err != nil {
		return err
	}
	return renewIdentity(image)
}

// last is the point that has the whole log on disk.
func (r *Recording) last() Point {
	if n := len(r.Log.Entries); n > 0 {
		return Point{Kind: Write, Entry: n - 1}
	}
	return Point{Kind: Start}
}

// Verify replays the whole log and compares the result with the disk that the
// program left, byte for byte.
func (r *Recording) Verify() (err error) {
	if r.Log.Trailing != 0 {
		return fmt.Errorf("verify recording %s: %d bytes of the log are not counted in its superblock", r.Dir, r.Log.Trailing)
	}
	replayed, err := os.CreateTemp(r.Dir, "verify-*.img")
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, replayed.Close(), os.Remove(replayed.Name()))
	}()
	if err := r.Image(replayed, r.last()); err != nil {
		return err
	}
	last, err := os.Open(filepath.Join(r.Dir, lastName))
	if err != nil {
		return err
	}
	defer last.Close()
	if err := compare(replayed, last, r.Size); err != nil {
		return fmt.Errorf("verify recording %s: %w", r.Dir, err)
	}
	return nil
}
