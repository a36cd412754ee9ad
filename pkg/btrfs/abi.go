package btrfs

import "unsafe"

// UUID is the identity of a subvolume or file system.
type UUID [16]byte

// IsZero reports whether the UUID is unset, as the parent's of a subvolume that
// is no snapshot.
func (u UUID) IsZero() bool { return u == UUID{} }

// String gives the usual form, 8-4-4-4-12 hexadecimal digits.
func (u UUID) String() string {
	const digits = "0123456789abcdef"
	out := make([]byte, 0, 36)
	for i, b := range u {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			out = append(out, '-')
		}
		out = append(out, digits[b>>4], digits[b&15])
	}
	return string(out)
}

// Limits and fixed identities (btrfs.h, btrfs_tree.h).
const (
	// MaxNameLength is BTRFS_VOL_NAME_MAX: bytes in the name of a subvolume.
	MaxNameLength = 255

	// RootTreeID is BTRFS_ROOT_TREE_OBJECTID, the tree of tree roots.
	RootTreeID = 1
	// TopLevelID is BTRFS_FS_TREE_OBJECTID, the subvolume that holds all others.
	TopLevelID = 5
	// FirstFreeID is BTRFS_FIRST_FREE_OBJECTID: the inode number of every
	// subvolume's root directory, and the least id of a created subvolume.
	FirstFreeID = 256
	// LastFreeID is BTRFS_LAST_FREE_OBJECTID.
	LastFreeID = ^uint64(0) - 255
	// EmptyDirID is BTRFS_EMPTY_SUBVOL_DIR_OBJECTID: the inode number of the stub
	// that stands where a snapshot's source had a nested subvolume.
	EmptyDirID = 2
)

// Flags of a subvolume, as Info gives them (BTRFS_ROOT_SUBVOL_RDONLY) and as the
// ioctls take them (BTRFS_SUBVOL_RDONLY, BTRFS_SUBVOL_SPEC_BY_ID).
const (
	rootReadOnly   = 1 << 0
	subvolReadOnly = 1 << 1
	subvolByID     = 1 << 4
)

// volArgs is struct btrfs_ioctl_vol_args.
type volArgs struct {
	fd   int64
	name [4088]byte
}

// volArgsV2 is struct btrfs_ioctl_vol_args_v2; name doubles as the subvolume id
// under subvolByID.
type volArgsV2 struct {
	fd      int64
	transID uint64
	flags   uint64
	unused  [4]uint64
	name    [4040]byte
}

// timespec is struct btrfs_ioctl_timespec.
type timespec struct {
	sec  uint64
	nsec uint32
	_    uint32
}

// subvolInfoArgs is struct btrfs_ioctl_get_subvol_info_args.
type subvolInfoArgs struct {
	treeID       uint64
	name         [MaxNameLength + 1]byte
	parentID     uint64
	dirID        uint64
	generation   uint64
	flags        uint64
	uuid         UUID
	parentUUID   UUID
	receivedUUID UUID
	cTransID     uint64
	oTransID     uint64
	sTransID     uint64
	rTransID     uint64
	cTime        timespec
	oTime        timespec
	sTime        timespec
	rTime        timespec
	reserved     [8]uint64
}

// searchKey is struct btrfs_ioctl_search_key.
type searchKey struct {
	treeID      uint64
	minObjectID uint64
	maxObjectID uint64
	minOffset   uint64
	maxOffset   uint64
	minTransID  uint64
	maxTransID  uint64
	minType     uint32
	maxType     uint32
	items       uint32
	unused      uint32
	unused1     [4]uint64
}

// searchArgsV2 is struct btrfs_ioctl_search_args_v2; the buffer follows it.
type searchArgsV2 struct {
	key     searchKey
	bufSize uint64
}

// searchHeader is struct btrfs_ioctl_search_header, before each item's data.
type searchHeader struct {
	transID  uint64
	objectID uint64
	offset   uint64
	itemType uint32
	length   uint32
}

// inoLookupArgs is struct btrfs_ioctl_ino_lookup_args.
type inoLookupArgs struct {
	treeID   uint64
	objectID uint64
	name     [4080]byte
}

// fsInfoArgs is struct btrfs_ioctl_fs_info_args.
type fsInfoArgs struct {
	maxID          uint64
	devices        uint64
	fsid           UUID
	nodeSize       uint32
	sectorSize     uint32
	cloneAlignment uint32
	csumType       uint16
	csumSize       uint16
	flags          uint64
	generation     uint64
	metadataUUID   UUID
	reserved       [944]byte
}

// devInfoArgs is struct btrfs_ioctl_dev_info_args.
type devInfoArgs struct {
	devID      uint64
	uuid       UUID
	bytesUsed  uint64
	totalBytes uint64
	unused     [379]uint64
	path       [1024]byte
}

// Directions of an ioctl (asm-generic/ioctl.h).
const (
	dirNone  = 0
	dirWrite = 1
	dirRead  = 2

	magic = 0x94
)

// request builds the number of an ioctl as _IOC does.
func request(direction, number, size uintptr) uintptr {
	return direction<<30 | size<<16 | magic<<8 | number
}

// The ioctls (btrfs.h).
var (
	iocSync          = request(dirNone, 8, 0)
	iocScanDev       = request(dirWrite, 4, unsafe.Sizeof(volArgs{}))
	iocDefaultSubvol = request(dirWrite, 19, 8)
	iocInoLookup     = request(dirRead|dirWrite, 18, unsafe.Sizeof(inoLookupArgs{}))
	iocTreeSearchV2  = request(dirRead|dirWrite, 17, unsafe.Sizeof(searchArgsV2{}))
	iocWaitSync      = request(dirWrite, 22, 8)
	iocSnapCreateV2  = request(dirWrite, 23, unsafe.Sizeof(volArgsV2{}))
	iocStartSync     = request(dirRead, 24, 8)
	iocSubvolCreate2 = request(dirWrite, 24, unsafe.Sizeof(volArgsV2{}))
	iocSubvolFlags   = request(dirRead, 25, 8)
	iocSubvolSetFlag = request(dirWrite, 26, 8)
	iocDevInfo       = request(dirRead|dirWrite, 30, unsafe.Sizeof(devInfoArgs{}))
	iocFSInfo        = request(dirRead, 31, unsafe.Sizeof(fsInfoArgs{}))
	iocDevicesReady  = request(dirRead, 39, unsafe.Sizeof(volArgs{}))
	iocSubvolInfo    = request(dirRead, 60, unsafe.Sizeof(subvolInfoArgs{}))
	iocSnapDestroyV2 = request(dirWrite, 63, unsafe.Sizeof(volArgsV2{}))
)
