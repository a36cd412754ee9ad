package powercut

import (
	"testing"

	"nixos-go/pkg/testx"
)

// needRecorder ends a test where disks cannot be recorded.
func needRecorder(t *testing.T) {
	t.Helper()
	testx.NeedBtrfs(t)
	if err := CanRecord(); err != nil {
		testx.Unavailable(t, err.Error())
	}
}
