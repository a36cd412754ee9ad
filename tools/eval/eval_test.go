package eval

import (
	"testing"

	"nixos-go/pkg/testx/tooltest"
)

func TestMain(m *testing.M) {
	tooltest.Main(m, tooltest.Tools{"nixos-eval": newApp}, "nix")
}

func TestScripts(t *testing.T) { tooltest.Scripts(t, "testdata") }
