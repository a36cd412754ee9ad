package powercut

import (
	"os"
	"os/exec"
	"testing"

	"nixos-go/pkg/testx"
)

// needRecorder ends a test where disks cannot be recorded.
func needRecorder(t *testing.T) {
	t.Helper()
	testx.NeedBtrfs(t)
	if _, err := os.Stat("/dev/fuse"); err != nil {
		testx.Unavailable(t, "no FUSE: "+err.Error())
	}
	if _, err := exec.LookPath(daemonProgram); err != nil {
		testx.Unavailable(t, err.Error()+" (Debian: qemu-system-common)")
	}
}
