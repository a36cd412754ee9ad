package tpm2tool_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/luks"
	"nixos-go/pkg/prompt"
	"nixos-go/pkg/run"
	"nixos-go/pkg/testx/leak"
	"nixos-go/pkg/testx/luksfile"
	tpm2tool "nixos-go/tools/tpm2"
)

// The passphrase and the PIN, through enabling, failing, and disabling, by the
// real programs.
func TestNoLeak(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	for _, fail := range []string{"", "--tpm2-pcrs=", "--wipe-slot", "luksAddKey", "token import", "--test-passphrase"} {
		t.Run("failing "+fail, func(t *testing.T) {
			m := newMachine(t, "tpm's")
			luksfile.AddTPM2Token(t, m.image(), 1)
			runner, _ := m.runner.(*systemd)
			runner.fail = fail
			hunt := leak.New(t, passphrase, pin)
			hunt.Watch([]string{tmp, m.dir})
			m.runner = hunt.Runner(m.runner)
			look := func() {
				hunt.Text("standard output", m.out.String())
				hunt.Text("standard error", m.err.String())
				hunt.Files()
			}
			m.answer(knows(), prompt.Answer{To: "New PIN", Say: pin}, prompt.Answer{To: "again", Say: pin})
			m.run("enable", "--pin", "--recovery-key", "--header-backup", filepath.Join(t.TempDir(), "header"), "--json")
			look()
			m.run("status", "--json")
			look()
			m.answer(knows(), prompt.Answer{To: "Remove", Say: "yes"})
			m.run("disable")
			look()
			if hunt.Looked() < 30 {
				t.Errorf("only %d texts were looked at", hunt.Looked())
			}
		})
	}
}

// The new recovery key is on standard output, once, and nowhere else.
func TestRecoveryKeyNoLeak(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	m := newMachine(t)
	recorder := &remember{Runner: m.runner}
	m.runner = recorder
	m.answer(knows())
	m.expect("enable", m.run("enable", "--recovery-key", "--json"), 0)
	var result tpm2tool.Result
	if err := json.Unmarshal(m.out.Bytes(), &result); err != nil {
		t.Fatal(err)
	}
	if strings.Count(m.out.String(), result.RecoveryKey) != 1 || luksfile.Opens(t, m.image(), result.RecoveryKey) != 1 {
		t.Errorf("the recovery key stands %d times on standard output, want 1", strings.Count(m.out.String(), result.RecoveryKey))
	}
	hunt := leak.New(t, result.RecoveryKey)
	hunt.Watch([]string{tmp, m.dir})
	hunt.Text("standard error", m.err.String())
	hunt.Text("the commands", strings.Join(recorder.seen, "\n"))
	hunt.Files()
}

// remember keeps what is visible of every command.
type remember struct {
	run.Runner

	seen []string
}

func (r *remember) Run(ctx context.Context, c run.Command) (run.Result, error) {
	r.seen = append(r.seen, c.String(), strings.Join(c.Env, " "))
	result, err := r.Runner.Run(ctx, c)
	r.seen = append(r.seen, string(result.Stdout), result.Tail)
	return result, err
}

// What the process leaves in memory of the passphrase and of the PIN: nothing.
func TestNoLeakInMemory(t *testing.T) {
	m := newMachine(t)
	for name, secret := range map[string]string{"passphrase": passphrase, "pin": pin, "held": "held MARKED-SECRET"} {
		m.write(name, secret)
		inverted := []byte(secret)
		leak.Invert(inverted)
		m.write(name+".inverted", string(inverted))
	}
	out, err := exec.Command("/proc/self/exe", memoryArg, m.dir, m.chip.Socket).CombinedOutput()
	if err != nil {
		t.Fatalf("the process = %v\n%s", err, out)
	}
	for _, want := range []string{"passphrase: 0 times in memory", "pin: 0 times in memory", "held: 1 times in memory"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("want %q in:\n%s", want, out)
		}
	}
	if len(m.header().TokensOf(luks.TokenTPM2)) != 1 {
		t.Errorf("the process did not enrol:\n%s", out)
	}
}

// memoryArg makes it the process whose memory is looked through.
const memoryArg = "memory-process"

// inMemory enrols the TPM of a machine, with a PIN, and prints how often each
// secret stands in memory afterwards.
func inMemory(dir, socket string) int {
	env := clikit.System()
	env.UID = 0 // on a machine of the test's own
	env.Host.Files = run.Below(dir)
	hooks := tpm2tool.Hooks{Open: openSocket(socket), TPM: "swtpm:path=" + socket}
	status := clikit.Run(context.Background(), tpm2tool.New(env, hooks), []string{
		"enable", "--insecure", "--yes", "--current-password-file", filepath.Join(dir, "passphrase"),
		"--pin-file", filepath.Join(dir, "pin"),
	}, env.UI)
	if err := leak.ReportMemory(dir, "passphrase", "pin"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return status
}

// What the tool and all programs that it runs hand to the kernel: the secrets
// travel in pipes and in memory alone.
func TestNoLeakInSystemCalls(t *testing.T) {
	m := newMachine(t)
	m.write("passphrase", passphrase)
	m.write("pin", pin)
	leak.Trace(t, []string{
		toolArg, "enable", "--insecure", "--yes", "--recovery-key",
		"--current-password-file", filepath.Join(m.dir, "passphrase"), "--pin-file", filepath.Join(m.dir, "pin"),
	}, []string{"MACHINE=" + m.dir, "TPM=" + m.chip.Socket}, passphrase, pin)
	m.chip.Flush()
	if len(m.header().TokensOf(luks.TokenTPM2)) != 1 {
		t.Error("the traced process did not enrol")
	}
}
