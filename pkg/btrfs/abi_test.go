package btrfs

import (
	"testing"
	"unsafe"
)

// Sizes as a C compiler gives them for the structures of btrfs.h, and the ioctl
// numbers that follow from them (as strace prints them).
func TestKernelABI(t *testing.T) {
	sizes := []struct {
		name      string
		got, want uintptr
	}{
		{"btrfs_ioctl_vol_args", unsafe.Sizeof(volArgs{}), 4096},
		{"btrfs_ioctl_vol_args_v2", unsafe.Sizeof(volArgsV2{}), 4096},
		{"btrfs_ioctl_timespec", unsafe.Sizeof(timespec{}), 16},
		{"btrfs_ioctl_get_subvol_info_args", unsafe.Sizeof(subvolInfoArgs{}), 504},
		{"btrfs_ioctl_search_key", unsafe.Sizeof(searchKey{}), 104},
		{"btrfs_ioctl_search_args_v2", unsafe.Sizeof(searchArgsV2{}), 112},
		{"btrfs_ioctl_search_header", unsafe.Sizeof(searchHeader{}), 32},
		{"btrfs_ioctl_ino_lookup_args", unsafe.Sizeof(inoLookupArgs{}), 4096},
		{"btrfs_ioctl_fs_info_args", unsafe.Sizeof(fsInfoArgs{}), 1024},
		{"btrfs_ioctl_dev_info_args", unsafe.Sizeof(devInfoArgs{}), 4096},
	}
	for _, s := range sizes {
		if s.got != s.want {
			t.Errorf("size of %s = %d, want %d", s.name, s.got, s.want)
		}
	}
	requests := []struct {
		name      string
		got, want uintptr
	}{
		{"SYNC", iocSync, 0x9408},
		{"SCAN_DEV", iocScanDev, 0x50009404},
		{"TREE_SEARCH_V2", iocTreeSearchV2, 0xc0709411},
		{"INO_LOOKUP", iocInoLookup, 0xd0009412},
		{"DEFAULT_SUBVOL", iocDefaultSubvol, 0x40089413},
		{"WAIT_SYNC", iocWaitSync, 0x40089416},
		{"SNAP_CREATE_V2", iocSnapCreateV2, 0x50009417},
		{"START_SYNC", iocStartSync, 0x80089418},
		{"SUBVOL_CREATE_V2", iocSubvolCreate2, 0x50009418},
		{"SUBVOL_GETFLAGS", iocSubvolFlags, 0x80089419},
		{"SUBVOL_SETFLAGS", iocSubvolSetFlag, 0x4008941a},
		{"DEV_INFO", iocDevInfo, 0xd000941e},
		{"FS_INFO", iocFSInfo, 0x8400941f},
		{"DEVICES_READY", iocDevicesReady, 0x90009427},
		{"GET_SUBVOL_INFO", iocSubvolInfo, 0x81f8943c},
		{"SNAP_DESTROY_V2", iocSnapDestroyV2, 0x5000943f},
	}
	for _, r := range requests {
		if r.got != r.want {
			t.Errorf("ioctl %s = %#x, want %#x", r.name, r.got, r.want)
		}
	}
}
