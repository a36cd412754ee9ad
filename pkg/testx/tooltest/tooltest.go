// Package tooltest runs whole command lines of a tool in scripts (testscript),
// with stand-ins for the programs it calls, and on a terminal.
//
// The tools run in the real world but for three things, which their tests set
// in the environment: ROOT is the folder that stands for the machine's /, and
// TOOL_UID the user they believe to run as.
package tooltest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/run"
	"nixos-go/pkg/testx/console"
	"nixos-go/pkg/testx/standin"
)

// Tools are apps by their names, each made for a world.
type Tools map[string]func(*clikit.Env) *cli.App

// Main is the TestMain of a tool's package: scripts can run its tools and the
// stand-ins by name.
func Main(m *testing.M, tools Tools, standins ...string) {
	commands := standin.Commands(standins...)
	for name, newApp := range tools {
		commands[name] = func() { os.Exit(clikit.Main(newApp(environment()))) }
	}
	testscript.Main(m, commands)
}

// environment is the real world with what the tests put in its place.
func environment() *clikit.Env {
	env := clikit.System()
	if root := os.Getenv("ROOT"); root != "" {
		env.Host.Files = run.Below(root)
	}
	if uid, err := strconv.Atoi(os.Getenv("TOOL_UID")); err == nil {
		env.UID = uid
	}
	return env
}

// Scripts runs the scripts of a folder. Beside testscript's own commands they
// have
//
//	commit DIR     makes DIR a git repository with everything committed
//	mode FILE MODE checks the permission bits of a file, in octal
//	[root]         is true where the test runs as root
//
// and what the extensions add.
func Scripts(t *testing.T, dir string, extensions ...func(*testscript.Params)) {
	t.Helper()
	params := testscript.Params{
		Dir:   dir,
		Setup: setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"commit": commit,
			"mode":   mode,
		},
		Condition: func(name string) (bool, error) {
			if name == "root" {
				return os.Getuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
	}
	for _, extend := range extensions {
		extend(&params)
	}
	testscript.Run(t, params)
}

// tbKey is where TB finds the test of a script.
type tbKey struct{}

// TB is the test that a script runs in, for commands that use helpers of testx.
func TB(ts *testscript.TestScript) testing.TB {
	tb, ok := ts.Value(tbKey{}).(testing.TB)
	if !ok {
		ts.Fatalf("the script runs in no test")
	}
	return tb
}

// variables are what every run of a tool has in its environment.
func variables(work string) []string {
	return []string{
		"ROOT=" + filepath.Join(work, "root"),
		"TOOL_UID=0",
		"NIXOS_GO_ROOT=" + filepath.Join(work, "flake"),
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org",
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org",
	}
}

func setup(env *testscript.Env) error {
	env.Values[tbKey{}] = env.T()
	for _, pair := range variables(env.WorkDir) {
		name, value, _ := strings.Cut(pair, "=")
		env.Setenv(name, value)
	}
	if err := os.MkdirAll(filepath.Join(env.WorkDir, "root"), 0o755); err != nil {
		return err
	}
	return standin.Setup(env)
}

func commit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: commit DIR")
	}
	if err := Commit(ts.MkAbs(args[0])); err != nil {
		ts.Fatalf("%v", err)
	}
}

// Commit makes a folder a git repository with everything committed.
func Commit(dir string) error {
	for _, args := range [][]string{{"init", "--quiet"}, {"add", "."}, {"commit", "--quiet", "--allow-empty", "-m", "test"}} {
		cmd := exec.Command("git", append([]string{"-C", dir}, args...)...)
		cmd.Env = append(os.Environ(), variables(dir)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("git %v: %w: %s", args, err, out)
		}
	}
	return nil
}

func mode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode FILE MODE")
	}
	info, err := os.Lstat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
	}
}

// Terminal runs a tool or stand-in of [Main] on a terminal, in the folder work,
// which stands for a script's $WORK. Pairs KEY=VALUE are added to the
// environment.
func Terminal(t *testing.T, work string, env []string, name string, args ...string) *console.Console {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	link := func(name string) string {
		path := filepath.Join(bin, name)
		if err := os.Symlink(self, path); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
		return path
	}
	scripts, err := os.ReadDir(filepath.Join(work, "standin"))
	if err != nil {
		t.Fatal(err)
	}
	for _, script := range scripts {
		link(script.Name())
	}
	cmd := exec.Command(link(name), args...)
	cmd.Dir = work
	cmd.Env = append(os.Environ(), variables(work)...)
	cmd.Env = append(cmd.Env, "TERM=xterm", "NO_COLOR=", "STANDIN="+filepath.Join(work, "standin"), "PATH="+bin+":"+os.Getenv("PATH"))
	cmd.Env = append(cmd.Env, env...)
	return console.Start(t, cmd)
}

// Unpack makes the folder of a test from files by name, as a script's txtar
// does, with the folders that stand-ins need.
func Unpack(t *testing.T, files map[string]string) (work string) {
	t.Helper()
	work = t.TempDir()
	for _, dir := range []string{"root", "standin/log"} {
		if err := os.MkdirAll(filepath.Join(work, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		path := filepath.Join(work, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return work
}

// Calls are the lines that the stand-ins wrote down.
func Calls(t *testing.T, work string) string {
	t.Helper()
	calls, err := os.ReadFile(filepath.Join(work, "standin", "calls"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(calls)
}
