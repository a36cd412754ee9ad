package install

import (
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"
	"strings"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/passwd"
	"nixos-go/pkg/prompt"
	"nixos-go/pkg/run"
)

// memory is where secrets may lie for a while: files there are never on a disk
// (but in swap), and the folders made in it are this user's alone.
const memory = "/dev/shm"

// installRemote hands a machine over to nixos-anywhere, with what belongs on it,
// and then runs the last steps there.
func (t tool) installRemote(ctx context.Context, r request) error {
	s := newSession(t, r)
	defer s.wipe()
	if r.options.DryRun {
		return s.show(r.remotePlan(filepath.Join(memory, "nixos-install-go")))
	}
	work, err := os.MkdirTemp(memory, "nixos-install-go-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	steps := r.remotePlan(work)
	if err := s.confirmRemote(ctx); err != nil {
		return err
	}
	if err := s.askSecrets(ctx, r.plan(stepPartition)); err != nil {
		return err
	}
	if err := s.extraFiles(ctx, work); err != nil {
		return err
	}
	for _, step := range steps {
		s.env.UI.Stepf("%s: %s", step.name, step.does)
		if err := s.commands(ctx, step.commands); err != nil {
			return clikit.WithHint(err, "the machine is as the failed step left it; run the command again when the cause is gone")
		}
		s.report.Steps = append(s.report.Steps, step.name)
	}
	s.report.Next = s.next()
	if r.options.JSON {
		return s.env.UI.JSON(s.report)
	}
	s.env.UI.Donef("%s is installed as %s", r.remote, r.host.Name)
	for _, text := range s.report.Next {
		s.env.UI.Hintf("%s", text)
	}
	if !r.reboot {
		s.env.UI.Hintf("boot it: ssh root@%s systemctl reboot", r.remoteHost())
	}
	return nil
}

// confirmRemote makes the owner type the machine's name.
func (s *session) confirmRemote(ctx context.Context) error {
	if s.r.options.Yes {
		if s.r.disk != s.r.device() {
			return clikit.Usagef("--yes wipes a disk unasked only if --disk names it: --disk %s", s.r.device())
		}
		return nil
	}
	s.env.UI.Warnf("everything on %s of the machine %s will be lost", s.r.device(), s.r.remote)
	typed, err := s.env.Ask.Input(ctx, prompt.Question{
		Text: "Type the name of the disk to wipe it (" + s.r.device() + ")",
		Flag: "--yes --disk " + s.r.device(),
	}, "")
	if err == nil && typed != s.r.device() {
		err = errors.New("nothing was wiped")
	}
	return err
}

// remoteHost is the machine without the user.
func (r request) remoteHost() string {
	_, host, found := strings.Cut(r.remote, "@")
	if !found {
		return r.remote
	}
	return host
}

// passphraseName and filesName are in the work folder: the disk's passphrase and
// the tree that nixos-anywhere copies to the target.
const (
	passphraseName = "passphrase"
	filesName      = "files"
)

// remotePlan is nixos-anywhere, then the last steps on the target by the tools
// that are installed there.
func (r request) remotePlan(work string) []step {
	steps := []step{
		{stepInstall, "install " + r.configuration() + " on " + r.remote + " by nixos-anywhere", []run.Command{r.anywhere(work)}},
		{stepPermissions, "permissions and CLEAN on the target", []run.Command{r.onTarget(
			"nixos-install-go", "--from", string(stepPermissions), "--root", "/", "--yes",
		)}},
	}
	if r.reboot {
		reboot := r.ssh("systemctl", "reboot")
		steps = append(steps, step{stepFinish, "reboot", []run.Command{reboot}})
	}
	return steps
}

// anywhere is the call of nixos-anywhere, from the flake's own nixpkgs. The
// reboot is left out: CLEAN is taken before it.
func (r request) anywhere(work string) run.Command {
	args := []string{
		"--extra-experimental-features", "nix-command flakes", "run", "--no-update-lock-file",
		"--inputs-from", r.flake.URL(), "nixpkgs#nixos-anywhere", "--",
		"--flake", r.flake.Configuration(r.configuration()),
		"--phases", "kexec,disko,install",
		"--extra-files", filepath.Join(work, filesName),
	}
	if r.settings.Disk.Encryption.Enable {
		args = append(args, "--disk-encryption-keys", r.settings.Disk.Encryption.PasswordFile, filepath.Join(work, passphraseName))
	}
	c := run.New("nix", append(args, "--target-host", r.remote)...)
	c.Interactive = true // ssh may ask
	return c
}

// ssh runs a program on the target. Its installer has made a new host key, which
// nobody can know yet; nothing secret goes this way.
func (r request) ssh(program string, args ...string) run.Command {
	words := []string{
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"root@" + r.remoteHost(), "--", run.New(program, args...).String(),
	}
	c := run.New("ssh", words...)
	c.Interactive = true
	return c
}

// onTarget runs a program of the installed system.
func (r request) onTarget(program string, args ...string) run.Command {
	entered := run.Chroot{Root: "/mnt"}.Enter(run.Command{Program: program, Args: args, Stream: true})
	return r.ssh(entered.Program, entered.Args...)
}

// extraFiles puts together what nixos-anywhere copies: the flake and the hash of
// the password.
func (s *session) extraFiles(ctx context.Context, work string) error {
	if s.passphrase != nil {
		if err := os.WriteFile(filepath.Join(work, passphraseName), s.passphrase, 0o600); err != nil {
			return err
		}
	}
	files := filepath.Join(work, filesName)
	to := filepath.Join(files, target)
	if err := run.Below(work).MkdirAll(path.Join(filesName, path.Dir(target)), 0o755); err != nil {
		return err
	}
	copying := run.New("cp", "--archive", "--no-target-directory", s.r.flake.Dir(), to)
	if err := s.commands(ctx, []run.Command{copying}); err != nil {
		return err
	}
	if err := s.writeConfig(to); err != nil {
		return err
	}
	hash, err := passwd.Hash(s.password)
	if err != nil {
		return err
	}
	// tar carries the modes of the folders over to the target, where those above
	// the secrets are everybody's.
	tree, name := run.Below(files), s.r.settings.Secrets.HashedPasswordFile
	return errors.Join(
		tree.MkdirAll(path.Dir(path.Dir(name)), 0o755),
		tree.MkdirAll(path.Dir(name), 0o700),
		tree.WriteFile(name, []byte(hash+"\n"), 0o600))
}
