package powercut

import (
	"os"
	"os/exec"
	"testing"
)

// needRecorder skips a test where disks cannot be recorded, with the reason;
// never in CI, which says so by NIXOS_GO_NO_SKIP.
func needRecorder(t *testing.T) {
	t.Helper()
	skip := t.Skipf
	if os.Getenv("NIXOS_GO_NO_SKIP") != "" {
		skip = t.Fatalf
	}
	if os.Geteuid() != 0 {
		skip("needs root")
	}
	for _, name := range []string{"/dev/loop-control", "/dev/fuse", "/dev/btrfs-control"} {
		if _, err := os.Stat(name); err != nil {
			skip("needs %s: %v", name, err)
		}
	}
	for _, name := range []string{daemonProgram, "mkfs.btrfs", "btrfs"} {
		if _, err := exec.LookPath(name); err != nil {
			skip("needs %s", name)
		}
	}
}
