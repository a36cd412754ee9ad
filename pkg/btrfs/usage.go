package btrfs

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
)

// Subvolumes lists the tree ids of all subvolumes of a file system, the top level
// among them, in order. What was destroyed and still takes space is not listed.
func Subvolumes(f *os.File) ([]uint64, error) {
	const refsAt = 216 // struct btrfs_root_item
	var out []uint64
	key := SearchKey{
		Tree: RootTreeID,
		Min:  Key{ObjectID: TopLevelID, Type: RootItemKey},
		Max:  Key{ObjectID: LastFreeID, Type: RootItemKey, Offset: ^uint64(0)},
	}
	err := NewSearcher(f, 64<<10).Search(key, func(it Item) error {
		isVolume := it.ObjectID == TopLevelID || it.ObjectID >= FirstFreeID && it.ObjectID <= LastFreeID
		if it.Type != RootItemKey || !isVolume {
			return nil
		}
		if len(it.Data) < refsAt+4 {
			return fmt.Errorf("root item of %d bytes: %w", len(it.Data), ErrItem)
		}
		if binary.LittleEndian.Uint32(it.Data[refsAt:]) > 0 {
			out = append(out, it.ObjectID)
		}
		return nil
	})
	return out, err
}

// MeasureData tells how much file data on disk each of some groups of subvolumes
// holds, given by tree ids, by a walk over the extents of all subvolumes of the file
// system. An extent counts whole, as stored, where any part of it is referenced: it is
// freed whole or not at all. Metadata and files small enough to live in it do not
// count. Sync first.
//
// It needs about 40 bytes of memory for each extent of the groups. progress, if not
// nil, is told the number of items that were looked at since the last call.
func MeasureData(ctx context.Context, f *os.File, groups [][]uint64, progress func(int64)) ([]Usage, error) {
	m := newDataMeter(len(groups))
	scan := &extentScan{ctx: ctx, search: NewScanner(f), progress: progress}
	measured := map[uint64]bool{}
	for i, ids := range groups {
		for _, id := range ids {
			measured[id] = true
			if err := scan.tree(id, func(e FileExtent) { m.add(e, i) }); err != nil {
				return nil, err
			}
		}
	}
	all, err := Subvolumes(f)
	if err != nil {
		return nil, err
	}
	for _, id := range all {
		if measured[id] {
			continue
		}
		if err := scan.tree(id, m.mark); err != nil {
			return nil, err
		}
	}
	return m.usage(), nil
}

// extentScan walks over the file extents of whole subvolumes.
type extentScan struct {
	ctx      context.Context
	search   *Searcher
	progress func(int64)
	seen     int64
	told     int64
}

// progressStep is how many items are looked at between two reports.
const progressStep = 1 << 16

func (s *extentScan) tree(id uint64, visit func(FileExtent)) error {
	key := SearchKey{
		Tree: id,
		Min:  Key{ObjectID: FirstFreeID},
		Max:  Key{ObjectID: LastFreeID, Type: ExtentDataKey, Offset: ^uint64(0)},
	}
	err := s.search.Search(key, func(it Item) error {
		if s.seen++; s.seen%progressStep == 0 {
			if err := context.Cause(s.ctx); err != nil {
				return err
			}
			s.report()
		}
		if it.Type != ExtentDataKey {
			return nil
		}
		e, err := DecodeFileExtent(it.Data)
		if err == nil && e.Kind != ExtentInline && e.DiskByte != 0 {
			visit(e)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("walk over the extents of subvolume %d: %w", id, err)
	}
	s.report()
	return nil
}

// report tells how many items were looked at since it was called last.
func (s *extentScan) report() {
	if s.progress != nil && s.seen > s.told {
		s.progress(s.seen - s.told)
	}
	s.told = s.seen
}

// dataMeter adds up extents by who holds them.
type dataMeter struct {
	extents map[uint64]holding // by address on disk
	total   []uint64           // of each group
}

// holding is an extent: its size, the group that it was last met in, and whether it
// was met elsewhere.
type holding struct {
	bytes  uint64
	group  int32
	shared bool
}

func newDataMeter(groups int) *dataMeter {
	return &dataMeter{extents: map[uint64]holding{}, total: make([]uint64, groups)}
}

// add counts an extent for a group; all extents of one group come in a row.
func (m *dataMeter) add(e FileExtent, group int) {
	h, known := m.extents[e.DiskByte]
	if known && h.group == int32(group) {
		return
	}
	m.extents[e.DiskByte] = holding{bytes: e.DiskBytes, group: int32(group), shared: known}
	m.total[group] += e.DiskBytes
}

// mark notes that somebody outside of the groups holds an extent.
func (m *dataMeter) mark(e FileExtent) {
	if h, known := m.extents[e.DiskByte]; known && !h.shared {
		h.shared = true
		m.extents[e.DiskByte] = h
	}
}

func (m *dataMeter) usage() []Usage {
	out := make([]Usage, len(m.total))
	for _, h := range m.extents {
		if !h.shared {
			out[h.group].Exclusive += h.bytes
		}
	}
	for i, total := range m.total {
		out[i].Shared = total - out[i].Exclusive
	}
	return slices.Clip(out)
}
