package btrfs_test

import (
	"errors"
	"testing"

	"nixos-go/pkg/btrfs"
)

// What the disk holds may be damaged: a decoder says so, and never reads past the
// bytes it was given.

func isItemError(t *testing.T, name string, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, btrfs.ErrItem) {
		t.Errorf("%s = %v, want %v", name, err, btrfs.ErrItem)
	}
}

func FuzzDecodeInodeItem(f *testing.F) {
	f.Add(make([]byte, 160))
	f.Add(make([]byte, 159))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := btrfs.DecodeInodeItem(b)
		isItemError(t, "DecodeInodeItem", err)
		if (err == nil) != (len(b) >= 160) {
			t.Errorf("DecodeInodeItem(%d bytes) = %v", len(b), err)
		}
	})
}

func FuzzDecodeDirItems(f *testing.F) {
	one := append(make([]byte, 25), 3, 0, 4, 0, 1, 'n', 'a', 'm', 'e', 'v', 'a', 'l')
	f.Add(one)
	f.Add(append(append([]byte{}, one...), one...))
	f.Add(one[:36])
	f.Fuzz(func(t *testing.T, b []byte) {
		items, err := btrfs.DecodeDirItems(b)
		isItemError(t, "DecodeDirItems", err)
		size := 0
		for _, it := range items {
			size += 30 + len(it.Name) + len(it.Data)
		}
		if err == nil && size != len(b) {
			t.Errorf("DecodeDirItems(%d bytes) = items of %d bytes together", len(b), size)
		}
		if err != nil && items != nil {
			t.Errorf("DecodeDirItems = %v with %v", items, err)
		}
	})
}

func FuzzDecodeInodeRefs(f *testing.F) {
	ref := append(make([]byte, 8), 4, 0, 'n', 'a', 'm', 'e')
	f.Add(uint64(256), false, ref)
	f.Add(uint64(256), true, append(make([]byte, 8), ref...))
	f.Add(uint64(256), false, ref[:13])
	f.Fuzz(func(t *testing.T, parent uint64, extended bool, b []byte) {
		key, head := btrfs.Key{ObjectID: 257, Type: btrfs.InodeRefKey, Offset: parent}, 10
		if extended {
			key.Type, head = btrfs.InodeExtrefKey, 18
		}
		refs, err := btrfs.DecodeInodeRefs(key, b)
		isItemError(t, "DecodeInodeRefs", err)
		size := 0
		for _, r := range refs {
			size += head + len(r.Name)
			if !extended && r.Parent != parent {
				t.Errorf("parent of %q = %d, want %d", r.Name, r.Parent, parent)
			}
		}
		if err == nil && size != len(b) {
			t.Errorf("DecodeInodeRefs(%d bytes) = references of %d bytes together", len(b), size)
		}
	})
}

func FuzzDecodeFileExtent(f *testing.F) {
	f.Add(make([]byte, 53))
	f.Add(append(append(make([]byte, 20), btrfs.ExtentRegular), make([]byte, 32)...))
	f.Add(append(append(make([]byte, 20), btrfs.ExtentPrealloc), make([]byte, 31)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := btrfs.DecodeFileExtent(b)
		isItemError(t, "DecodeFileExtent", err)
		switch {
		case err != nil:
		case e.Kind == btrfs.ExtentInline && len(e.Inline) != len(b)-21:
			t.Errorf("DecodeFileExtent(%d bytes) = %d bytes inline", len(b), len(e.Inline))
		case e.Kind != btrfs.ExtentInline && (len(b) < 53 || e.Inline != nil):
			t.Errorf("DecodeFileExtent(%d bytes) = kind %d with %d bytes inline", len(b), e.Kind, len(e.Inline))
		}
	})
}

func FuzzDecodeRootRef(f *testing.F) {
	f.Add(append(make([]byte, 16), 2, 0, 'a', 'b'))
	f.Add(append(make([]byte, 16), 3, 0, 'a', 'b'))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := btrfs.DecodeRootRef(b)
		isItemError(t, "DecodeRootRef", err)
		if err == nil && len(b) < 18+len(r.Name) {
			t.Errorf("DecodeRootRef(%d bytes) = a name of %d", len(b), len(r.Name))
		}
	})
}
