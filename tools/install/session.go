package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/nix"
	"nixos-go/pkg/prompt"
	"nixos-go/pkg/run"
	"nixos-go/pkg/settings"
	"nixos-go/pkg/ui"
)

// session carries an installation out.
type session struct {
	tool

	r      request
	files  run.Files // of this system
	disk   *blockDevice
	state  *state
	report report
	// passphrase opens the disk, password is the admin's; nil where no step
	// needs them.
	passphrase, password []byte
	// hasRecoveryKey says that one was made and shown.
	hasRecoveryKey bool
}

// report is the result.
type report struct {
	Host          string       `json:"host,omitempty"`
	Configuration string       `json:"configuration,omitempty"`
	Device        string       `json:"device,omitempty"`
	Root          string       `json:"root"`
	Steps         []stepName   `json:"steps"`
	Clean         []cleanTaken `json:"clean,omitempty"`
	Next          []string     `json:"next,omitempty"`
}

func newSession(t tool, r request) *session {
	s := &session{tool: t, r: r, files: t.env.Host.Files}
	s.report = report{Root: r.root, Steps: []stepName{}}
	s.identify()
	return s
}

// identify says in the report which machine it is.
func (s *session) identify() {
	if s.r.settings != nil {
		s.report.Host, s.report.Configuration, s.report.Device = s.r.host.Name, s.r.configuration(), s.r.device()
	}
}

// wipe overwrites the secrets and takes away what a program may have needed.
func (s *session) wipe() {
	run.Wipe(s.passphrase)
	run.Wipe(s.password)
	s.env.Redact.Wipe()
	if err := s.removePassphraseFile(); err != nil {
		s.env.UI.Errorf("the disk's passphrase is still in %s: remove it: %v", s.passphraseFile(), err)
	}
}

func (s *session) run(ctx context.Context) error {
	from, err := s.begin(ctx)
	if err != nil {
		return err
	}
	steps, err := s.plan(from)
	if err != nil {
		return err
	}
	if s.r.options.DryRun {
		return s.show(steps)
	}
	if err := s.prepare(ctx, steps); err != nil {
		return err
	}
	for _, step := range steps {
		if err := s.step(ctx, step); err != nil {
			return s.failed(ctx, step, err)
		}
		s.report.Steps = append(s.report.Steps, step.name)
	}
	if s.r.options.JSON {
		return s.env.UI.JSON(s.report)
	}
	return nil
}

// begin looks at the machine, the disk and an unfinished installation, and finds
// the step to begin with.
func (s *session) begin(ctx context.Context) (stepName, error) {
	if s.r.installedOnly() {
		return s.r.from, s.knowInstalled()
	}
	if err := checkMachine(s.files, s.r.host); err != nil {
		return "", err
	}
	var err error
	if s.state, err = readState(s.files); err != nil {
		return "", err
	}
	disks, err := readDisks(ctx, s.env.Host)
	if err != nil {
		return "", err
	}
	if !s.r.options.JSON {
		if err := showDisks(s.env.UI, disks); err != nil {
			return "", err
		}
	}
	if s.disk, err = findDisk(s.files, disks, s.r.settings); err != nil {
		return "", err
	}
	if err := checkNamed(s.files, s.r.disk, s.disk); err != nil {
		return "", err
	}
	if s.r.mountOnly {
		return stepMount, nil
	}
	from, err := s.resume(ctx)
	if err != nil || from != stepPartition {
		return from, err
	}
	ours := s.state != nil && s.state.Host == s.r.host.Name && len(s.state.Done)+len(s.state.Working) > 0
	return from, checkDisk(s.disk, s.r.settings, s.r.root, ours)
}

// resume decides where to begin: where --from says, where an unfinished
// installation stopped, or at the beginning.
func (s *session) resume(ctx context.Context) (stepName, error) {
	if s.r.from != "" || s.state == nil {
		if s.r.from != "" {
			return s.r.from, nil
		}
		return stepPartition, nil
	}
	if s.state.Host != s.r.host.Name || s.state.Device != s.r.device() {
		return "", clikit.WithHint(
			fmt.Errorf("an installation of %s on %s is unfinished", s.state.Host, s.state.Device),
			"finish it with --host %s, or begin this one with --from %s", s.state.Host, stepPartition)
	}
	next := s.state.next()
	if s.r.options.Yes || s.r.options.DryRun || next == stepPartition {
		s.env.UI.Infof("An unfinished installation of %s goes on with the step %s.", s.state.Host, next)
		return next, nil
	}
	ok, err := s.env.Ask.Confirm(ctx, prompt.Question{
		Text: fmt.Sprintf("An installation of %s stopped before the step %s. Go on from there?", s.state.Host, next),
		Help: "No begins anew and wipes the disk.",
		Flag: "--from STEP",
	}, true)
	if err != nil || ok {
		return next, err
	}
	return stepPartition, nil
}

// knowInstalled takes the settings of the installed system, where no flake is
// asked for.
func (s *session) knowInstalled() error {
	facts, err := settings.Read(s.targetFiles(), path.Join(settings.SystemProfile, settings.File))
	if err != nil {
		return clikit.WithHint(fmt.Errorf("no installed system at %s: %w", s.r.root, err),
			"mount it first: nixos-install-go --mount-only")
	}
	s.r.settings = facts
	s.r.host.Name = facts.Networking.HostName
	s.identify()
	return nil
}

// plan makes the steps, mounting first where a later step needs it.
func (s *session) plan(from stepName) ([]step, error) {
	if info, err := os.Stat(s.r.below(target)); err == nil {
		s.r.targetOwner, _ = nix.OwnerOf(info)
	}
	steps := s.r.plan(from)
	if s.r.installedOnly() || from == stepPartition {
		return steps, nil
	}
	mounted, err := isMounted(s.files, s.r.root)
	if err != nil {
		return nil, err
	}
	switch {
	case mounted && s.r.mountOnly:
		return nil, nil
	case !mounted && !s.r.mountOnly:
		steps = slices.Insert(steps, 0, s.r.mount())
	}
	return steps, nil
}

// prepare asks everything that the steps need, before the first of them.
func (s *session) prepare(ctx context.Context, steps []step) error {
	if len(steps) == 0 {
		s.env.UI.Infof("Something is mounted at %s already.", s.r.root)
		s.hintMounted()
		return nil
	}
	if s.r.installedOnly() {
		return nil
	}
	if err := s.removePassphraseFile(); err != nil {
		return err
	}
	if steps[0].name == stepPartition {
		if err := s.confirmWipe(ctx); err != nil {
			return err
		}
	}
	if err := s.askSecrets(ctx, steps); err != nil {
		return err
	}
	if s.r.mountOnly {
		return nil
	}
	return s.note(steps)
}

// note writes the state that the steps begin from.
func (s *session) note(steps []step) error {
	done := []stepName{}
	for _, name := range allSteps {
		if slices.ContainsFunc(steps, func(st step) bool { return st.name == name }) {
			break
		}
		done = append(done, name)
	}
	s.state = &state{Version: stateVersion, Flake: s.r.flake.Dir(), Host: s.r.host.Name, Device: s.r.device(), Done: done}
	return s.state.write(s.files)
}

// confirmWipe makes the owner type the name of the disk.
func (s *session) confirmWipe(ctx context.Context) error {
	if s.r.options.Yes {
		if s.r.disk == "" {
			return clikit.Usagef("--yes wipes a disk unasked only if --disk names it: --disk %s", s.disk.Path)
		}
		return nil
	}
	s.env.UI.Warnf("everything on %s (%s, %s) will be lost", s.disk.Path, s.disk.title(), ui.Size(s.disk.Size))
	for {
		typed, err := s.env.Ask.Input(ctx, prompt.Question{
			Text: "Type the name of the disk to wipe it (" + s.disk.Path + ")",
			Flag: "--yes --disk " + s.disk.Path,
		}, "")
		if err != nil {
			return err
		}
		if isNameOf(s.files, typed, s.disk) {
			return nil
		}
		if typed == "" {
			return errors.New("nothing was wiped")
		}
		s.env.UI.Warnf("%q is not %s; an empty line stops", typed, s.disk.Path)
	}
}

// step carries one step out and notes it.
func (s *session) step(ctx context.Context, step step) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	s.env.UI.Stepf("%s: %s", step.name, step.does)
	noted := s.state != nil && slices.Contains(allSteps, step.name)
	if noted {
		if err := s.state.begin(s.files, step.name); err != nil {
			return err
		}
	}
	work := map[stepName]func(context.Context, []run.Command) error{
		stepPartition: s.mountByDisko, stepMount: s.mountByDisko,
		stepConfiguration: s.configuration, stepSecrets: s.secrets, stepInstall: s.commands,
		stepPermissions: s.permissions, stepClean: s.takeClean, stepFinish: s.finish,
	}[step.name]
	if err := work(ctx, step.commands); err != nil {
		return err
	}
	if noted && s.state != nil { // the last step has forgotten it
		return s.state.finish(s.files, step.name)
	}
	return nil
}

// commands runs the programs of a step.
func (s *session) commands(ctx context.Context, commands []run.Command) error {
	for _, c := range commands {
		if _, err := s.env.Host.Run(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// failed says how to go on, and unmounts only if the owner wants it.
func (s *session) failed(ctx context.Context, step step, err error) error {
	from := step.name
	again := "sudo nixos-install-go --from " + string(from)
	if from == stepMount || s.r.mountOnly {
		again = "the same command"
	}
	mounted, _ := isMounted(s.files, s.r.root)
	if !mounted || s.r.installedOnly() {
		return clikit.WithHint(err, "go on, when the cause is gone: %s", again)
	}
	if s.wantsUnmount(ctx) {
		return clikit.WithHint(errors.Join(err, s.unmountTarget(context.WithoutCancel(ctx))), "go on, when the cause is gone: %s", again)
	}
	return clikit.WithHint(err, "the target stays mounted at %s; go on, when the cause is gone: %s; or unmount it: umount --recursive %s",
		s.r.root, again, s.r.root)
}

// wantsUnmount asks whether a failed installation shall be unmounted; nobody
// there to ask means no.
func (s *session) wantsUnmount(ctx context.Context) bool {
	if s.r.unmount || s.r.options.Yes || ctx.Err() != nil {
		return s.r.unmount
	}
	ok, err := s.env.Ask.Confirm(ctx, prompt.Question{Text: "The step failed. Unmount the target?", Flag: "--unmount"}, false)
	return err == nil && ok
}

// removeState forgets a finished installation.
func (s *session) removeState() error {
	err := s.files.Remove(stateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

type plannedStep struct {
	Step     stepName   `json:"step"`
	Does     string     `json:"does"`
	Commands [][]string `json:"commands,omitempty"`
}

// show shows a plan and does nothing.
func (s *session) show(steps []step) error {
	list := make([]plannedStep, 0, len(steps))
	for _, step := range steps {
		p := plannedStep{Step: step.name, Does: step.does}
		for _, c := range step.commands {
			p.Commands = append(p.Commands, append([]string{c.Program}, c.Args...))
		}
		list = append(list, p)
	}
	if s.r.options.JSON {
		return s.env.UI.JSON(map[string]any{
			"applied": false, "host": s.r.host.Name, "device": s.r.device(), "root": s.r.root, "steps": list,
		})
	}
	for i, step := range steps {
		lines := []string{fmt.Sprintf("%d. %s: %s", i+1, step.name, step.does)}
		for _, c := range step.commands {
			lines = append(lines, "   "+c.String())
		}
		if err := s.env.UI.Print(strings.Join(lines, "\n")); err != nil {
			return err
		}
	}
	return nil
}
