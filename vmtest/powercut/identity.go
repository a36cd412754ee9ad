package powercut

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// Offsets in struct btrfs_super_block, and its places, from linux/btrfs_tree.h and
// fs/btrfs/disk-io.h.
const (
	superSize     = 4096
	superFSID     = 0x20 // 16 bytes
	superMagic    = 0x40
	superIncompat = 0xbc
	superCsumType = 0xc4
	superMetadata = 0x23b // metadata_uuid, 16 bytes
)

const (
	btrfsMagic   = 0x4d5f53665248425f // "_BHRfS_M"
	csumCRC32C   = 0                  // BTRFS_CSUM_TYPE_CRC32
	metadataUUID = 1 << 10            // BTRFS_FEATURE_INCOMPAT_METADATA_UUID
)

// superPlaces are where the superblock is, in bytes; on a disk that is not larger
// than 256 GiB.
var superPlaces = []int64{64 << 10, 64 << 20}

// renewIdentity gives the btrfs of an image a new file system id, as btrfstune -m
// does. All images of a recording have the same, and the kernel does not take kindly
// to that: it mixes them up when they are mounted at the same time, and refuses one
// that is older than what it has seen. Nothing but the superblocks changes, and of
// these only what is valid: a torn one stays torn.
func renewIdentity(image *os.File) error {
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return err
	}
	for _, place := range superPlaces {
		super := make([]byte, superSize)
		_, err := image.ReadAt(super, place)
		if errors.Is(err, io.EOF) {
			return nil // a small disk has fewer
		}
		if err != nil {
			return err
		}
		if !isSuper(super) {
			continue
		}
		le := binary.LittleEndian
		if flags := le.Uint64(super[superIncompat:]); flags&metadataUUID == 0 {
			// The id that all metadata has stays the old one.
			copy(super[superMetadata:superMetadata+16], super[superFSID:])
			le.PutUint64(super[superIncompat:], flags|metadataUUID)
		}
		copy(super[superFSID:], id)
		le.PutUint32(super, superSum(super))
		if _, err := image.WriteAt(super, place); err != nil {
			return fmt.Errorf("superblock at %d: %w", place, err)
		}
	}
	return nil
}

// isSuper reports whether a superblock is valid, with a checksum that is known here.
func isSuper(super []byte) bool {
	le := binary.LittleEndian
	return le.Uint64(super[superMagic:]) == btrfsMagic &&
		le.Uint16(super[superCsumType:]) == csumCRC32C &&
		le.Uint32(super) == superSum(super) && bytes.Count(super[4:superFSID], []byte{0}) == superFSID-4
}

func superSum(super []byte) uint32 {
	return crc32.Checksum(super[superFSID:], crc32.MakeTable(crc32.Castagnoli))
}
