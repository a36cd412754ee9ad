package btrfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Items of the quota tree (btrfs_tree.h).
const (
	quotaTreeID     = 8
	quotaStatusKey  = 240
	quotaInfoKey    = 242
	quotaStatusSize = 24 // up to and with the flags
	quotaInfoSize   = 40
)

// Flags of the quota tree's status (BTRFS_QGROUP_STATUS_FLAG_*).
const (
	quotaOn           = 1 << 0
	quotaRescan       = 1 << 1
	quotaInconsistent = 1 << 2
	quotaSimple       = 1 << 3
)

// Usage is how much of the disk a subvolume, or a group of them, holds, in bytes.
type Usage struct {
	// Exclusive is held by it alone: what deleting it would free.
	Exclusive uint64
	// Shared is held by others as well.
	Shared uint64
}

// ReadQuotas gives what the quota groups of level 0 know of each subvolume, by tree
// id: data and metadata, as of the last commit. It is nil where quotas are off, being
// scanned, known to be out of date, or of the simple kind, which does not tell what
// is shared.
func ReadQuotas(f *os.File) (map[uint64]Usage, error) {
	on := false
	out := map[uint64]Usage{}
	key := SearchKey{
		Tree: quotaTreeID,
		Min:  Key{Type: quotaStatusKey},
		Max:  Key{Type: quotaInfoKey, Offset: 1<<48 - 1}, // the level is in the upper 16 bits
	}
	err := NewSearcher(f, scanBuffer).Search(key, func(it Item) error {
		switch it.Type {
		case quotaStatusKey:
			flags, err := DecodeQuotaFlags(it.Data)
			on = flags&(quotaOn|quotaRescan|quotaInconsistent|quotaSimple) == quotaOn
			return err
		case quotaInfoKey:
			u, err := DecodeQuotaInfo(it.Data)
			out[it.Offset] = u
			return err
		}
		return nil
	})
	switch {
	case errors.Is(err, unix.ENOENT): // no quota tree
		return nil, nil
	case err != nil || !on:
		return nil, err
	}
	return out, nil
}

// DecodeQuotaFlags reads the flags of struct btrfs_qgroup_status_item.
func DecodeQuotaFlags(b []byte) (uint64, error) {
	if len(b) < quotaStatusSize {
		return 0, fmt.Errorf("quota status of %d bytes: %w", len(b), ErrItem)
	}
	return binary.LittleEndian.Uint64(b[16:]), nil
}

// DecodeQuotaInfo reads struct btrfs_qgroup_info_item.
func DecodeQuotaInfo(b []byte) (Usage, error) {
	if len(b) < quotaInfoSize {
		return Usage{}, fmt.Errorf("quota info of %d bytes: %w", len(b), ErrItem)
	}
	referenced, exclusive := binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[24:])
	return Usage{Exclusive: exclusive, Shared: referenced - min(exclusive, referenced)}, nil
}
