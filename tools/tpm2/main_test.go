package tpm2tool_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"
	"github.com/rogpeppe/go-internal/testscript"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/run"
	"nixos-go/pkg/testx/fakeesp"
	"nixos-go/pkg/testx/kill"
	"nixos-go/pkg/testx/luksfile"
	"nixos-go/pkg/testx/standin"
	"nixos-go/pkg/testx/swtpm"
	"nixos-go/pkg/tpm2"
	tpm2tool "nixos-go/tools/tpm2"
)

// killArg makes the test's own program the process that is killed.
const killArg = "killed-process"

// toolArg makes it the tool, on the machine in the folder $MACHINE with the TPM
// at the socket $TPM.
const toolArg = "tool-process"

// aside keeps the stand-ins out of the tests with real programs.
var aside *standin.Aside

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == toolArg {
		env := clikit.System()
		env.UID = 0 // on a machine of the test's own
		env.Host.Files = run.Below(os.Getenv("MACHINE"))
		socket := os.Getenv("TPM")
		ctx, stop := clikit.SignalContext(context.Background())
		status := clikit.Run(ctx, tpm2tool.New(env, tpm2tool.Hooks{Open: openSocket(socket), TPM: "swtpm:path=" + socket}), os.Args[2:], env.UI)
		stop()
		os.Exit(status)
	}
	if len(os.Args) > 4 && os.Args[1] == killArg {
		os.Exit(killed(os.Args[2], os.Args[3], os.Args[4]))
	}
	if len(os.Args) > 3 && os.Args[1] == memoryArg {
		os.Exit(inMemory(os.Args[2], os.Args[3]))
	}
	commands := standin.Commands("cryptsetup", "systemd-cryptenroll")
	commands["nixos-tpm2"] = func() {
		env := clikit.System()
		env.UID = 0 // on a machine of the test's own
		env.Host.Files = run.Below(os.Getenv("MACHINE"))
		if os.Getenv("USER_IS") == "nobody" {
			env.UID = 65534
		}
		os.Exit(clikit.Main(tpm2tool.New(env, tpm2tool.Hooks{Open: openSocket(os.Getenv("TPM"))})))
	}
	aside = standin.NewAside(m)
	testscript.Main(aside, commands)
}

func openSocket(socket string) func(run.Files) (*tpm2.Device, error) {
	return func(run.Files) (*tpm2.Device, error) {
		chip, err := linuxudstpm.Open(socket)
		return &tpm2.Device{TPMCloser: chip}, err
	}
}

// killed enrols the TPM of a machine and dies at a point, of the steps or of the
// commands. The policy is the
// insecure one, which every systemd-cryptenroll knows.
func killed(dir, socket, point string) int {
	env := clikit.System()
	env.UID = 0 // on a machine of the test's own
	env.Host.Files = run.Below(dir)
	hooks := tpm2tool.Hooks{
		Open: openSocket(socket), TPM: "swtpm:path=" + socket,
		Step: func(kind string, done bool) {
			if kind+map[bool]string{true: "+", false: "-"}[done] == point {
				kill.Now()
			}
		},
	}
	env.Host.Runner = kill.Runner(env.Host.Runner, point)
	return clikit.Run(context.Background(), tpm2tool.New(env, hooks), []string{
		"enable", "--insecure", "--yes", "--recovery-key", "--current-password-file", filepath.Join(dir, "passphrase"),
	}, env.UI)
}

func TestScripts(t *testing.T) {
	luksfile.Need(t, "cryptsetup", "systemd-cryptenroll", "swtpm") // a script's set-up cannot skip the test
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(e *testscript.Env) error {
			m := newMachine(t)
			m.write("passphrase", passphrase+"\n")
			m.write("pin", pin+"\n")
			e.Setenv("MACHINE", m.dir)
			e.Setenv("TPM", m.chip.Socket)
			return aside.Setup(e)
		},
	})
}

func newMachineTPM(t *testing.T) *swtpm.TPM {
	t.Helper()
	return swtpm.Start(t)
}

func firmwareWithoutSecureBoot() fakeesp.Firmware {
	return fakeesp.Firmware{Loader: "systemd-boot 258.2"}
}
