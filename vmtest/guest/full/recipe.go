package full

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"strings"
)

const (
	suite = "trixie"
	arch  = "amd64"
)

// source is this package: what it makes is made anew when it changes.
//
//go:embed *.go
var source embed.FS

// recipe is a name for the source and for what else goes into a part.
func recipe(parts ...string) (string, error) {
	sum := sha256.New()
	entries, err := source.ReadDir(".")
	if err != nil {
		return "", err
	}
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), "_test.go") {
			continue
		}
		b, err := source.ReadFile(entry.Name())
		if err != nil {
			return "", err
		}
		sum.Write(b)
	}
	for _, part := range parts {
		sum.Write([]byte("\x00" + part))
	}
	return hex.EncodeToString(sum.Sum(nil)[:6]), nil
}

// packages are what the guest has installed, beside what Debian calls required.
func packages() []string {
	return []string{
		"linux-image-amd64",
		"systemd", "systemd-sysv", "systemd-cryptsetup", "systemd-boot-efi", "udev", "dbus", "kmod",
		"btrfs-progs", "dosfstools", "cryptsetup-bin", "fdisk", "efibootmgr", "pciutils",
		// systemd opens these by dlopen(3).
		"libtss2-esys-3.0.2-0t64", "libtss2-mu-4.0.1-0t64", "libtss2-rc0t64", "libtss2-tcti-device0t64",
		"efitools", "sbsigntool", "openssl",
		"procps", "iproute2", "git", "jq", "attr", "acl", "zstd",
		"openssh-server", "sudo",
	}
}

// initrdModules are what the initrd loads or may need; systemModules come on
// top for the system. Names that the kernel has compiled in are fine.
func initrdModules() []string {
	return []string{
		"virtio_pci", "virtio_blk", "virtio_console", "virtio_rng", "nvme",
		"btrfs", "xxhash_generic", "crc32c_generic",
		"dm-mod", "dm-crypt", "xts", "cbc", "aesni_intel", "sha256_generic", "sha512_generic", "af_alg", "algif_skcipher", "algif_hash",
		"tpm_tis", "tpm_crb", "qemu_fw_cfg", "efivarfs", "autofs4",
	}
}

func systemModules() []string {
	return []string{
		"vfat", "nls_cp437", "nls_ascii", "nls_iso8859-1", "nls_utf8", "ext4", "loop", "overlay", "fuse", "configfs",
		"virtio_net", "e1000e", "vfio-pci", "vfio_iommu_type1",
	}
}

// masked are units that cost time and have nothing to do in a machine that
// lives for a minute.
func masked() []string {
	return []string{
		"apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer", "e2scrub_all.timer",
		"e2scrub_reap.service", "getty@tty1.service", "serial-getty@ttyS0.service", "console-getty.service",
		"systemd-hwdb-update.service", "ldconfig.service", "systemd-update-done.service", "systemd-pstore.service",
		"systemd-logind.service", "systemd-timesyncd.service", "systemd-binfmt.service", "systemd-firstboot.service",
		"systemd-journal-catalog-update.service", "systemd-sysusers.service", "modprobe@drm.service",
		"modprobe@efi_pstore.service", "dev-hugepages.mount", "dev-mqueue.mount", "sys-fs-fuse-connections.mount",
		"proc-sys-fs-binfmt_misc.automount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
		// There is a socket of ours for it.
		"ssh.service", "ssh.socket", "sshd-unix-local.socket", "sshd-vsock.socket", "sshd-keygen.service",
		// What is measured beside the boot would make PCR values depend on it.
		"systemd-pcrlock.socket", "systemd-networkd.service", "systemd-networkd.socket", "systemd-hibernate-clear.service",
	}
}
