package fixpermissions

import (
	"testing"

	"nixos-go/pkg/testx/tooltest"
)

func TestMain(m *testing.M) {
	tooltest.Main(m, tooltest.Tools{"nixos-fix-permissions": newApp}, "nix")
}

func TestScripts(t *testing.T) { tooltest.Scripts(t, "testdata") }
