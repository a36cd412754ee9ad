package standin

import (
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	commands := Commands("nix", "sbctl")
	maps.Copy(commands, map[string]func(){
		"words": func() { os.Stdout.WriteString(strings.Join(os.Args[1:], "|") + "\n") },
	})
	testscript.Main(m, commands)
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", Setup: Setup})
}
