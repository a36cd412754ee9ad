package changepassword

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/luks"
	"nixos-go/pkg/passwd"
	"nixos-go/pkg/run"
	"nixos-go/pkg/settings"
	"nixos-go/pkg/tpm2"
)

// Where the system keeps what an activation makes of the hash.
const (
	activate   = settings.RunningSystem + "/activate"
	shadowFile = "/etc/shadow"
)

// Result is what was done, or, with an error, what is the case after it.
type Result struct {
	// Error is what failed; State are then the passwords that work, in words.
	Error string   `json:"error,omitempty"`
	State []string `json:"state,omitempty"`

	Disk    *DiskResult    `json:"disk,omitempty"`
	Account *AccountResult `json:"account,omitempty"`
	TPM2    *TPM2Plan      `json:"tpm2,omitempty"`
}

// DiskResult is what became of the key slots.
type DiskResult struct {
	Device  string `json:"device"`
	Slot    int    `json:"slot"`
	Removed *int   `json:"removed,omitempty"`
	// Others are the other slots that a person can open by typing.
	Others []int `json:"others,omitempty"`
}

// AccountResult names the account.
type AccountResult struct {
	Name string `json:"name"`
}

// step is one part of the change. The undo of a step also copes with one that
// was only half done; a step without undo is beyond the point where going back
// would help.
type step struct {
	kind string
	text string
	do   func(context.Context) error
	undo func(context.Context) error
}

func (s *session) steps() []step {
	var steps []step
	if d := s.plan.Disk; d != nil && !d.Added {
		steps = append(steps, step{
			kind: "add", text: fmt.Sprintf("adding the new passphrase to key slot %d, and testing it", d.NewSlot),
			do: s.addPassphrase, undo: s.removeAdded,
		})
	}
	if a := s.plan.Account; a != nil {
		account := &accountChange{session: s}
		steps = append(steps, step{
			kind: "account", text: "changing the password of " + a.Name,
			do: account.do, undo: account.undo,
		})
	}
	if d := s.plan.Disk; d != nil && d.KeepOld == "" {
		steps = append(steps, step{
			kind: "remove", text: fmt.Sprintf("removing the old passphrase from key slot %d", d.OldSlot),
			do: s.removeOld,
		})
	}
	if s.plan.TPM2 != nil {
		steps = append(steps, step{kind: "tpm2", text: "enrolling the TPM: " + s.plan.TPM2.Policy.String(), do: s.enrol})
	}
	return steps
}

// apply does the steps. One that fails takes those before it back, as far as
// they can be.
func (s *session) apply(ctx context.Context) error {
	steps := s.steps()
	for i, st := range steps {
		err := context.Cause(ctx)
		if err == nil {
			s.env.UI.Stepf("%s", st.text)
			s.hook(st.kind, false)
			err = st.do(ctx)
			s.hook(st.kind, true)
		}
		if err != nil {
			return s.fail(context.WithoutCancel(ctx), steps[:i+1], err)
		}
	}
	return s.tell()
}

func (s *session) hook(kind string, done bool) {
	if s.hooks.Step != nil {
		s.hooks.Step(kind, done)
	}
}

// fail goes back and says what is the case now.
func (s *session) fail(ctx context.Context, done []step, cause error) error {
	failed := done[len(done)-1]
	var left []string
	if failed.undo != nil {
		for _, st := range slices.Backward(done) {
			if err := st.undo(ctx); err != nil {
				left = append(left, err.Error())
			}
		}
	}
	for _, text := range left {
		s.env.UI.Warnf("could not be put back: %s", text)
	}
	s.env.UI.Errorf("%s: %v", failed.text, cause)
	state := s.whatWorks(ctx)
	for _, line := range state {
		s.env.UI.Infof("%s", line)
	}
	s.env.UI.Hintf("%s", nextOf(failed.kind))
	if s.options.JSON {
		if err := s.env.UI.JSON(Result{Error: s.env.Redact.Text(cause.Error()), State: state}); err != nil {
			return err
		}
	}
	return clikit.ErrReported
}

func nextOf(kind string) string {
	switch kind {
	case "remove":
		return "run " + name + " again with the same passwords to remove the old one"
	case "tpm2":
		return "sudo nixos-tpm2 status shows the key slots; sudo nixos-tpm2 enable enrols the TPM"
	default:
		return "mend the cause and run " + name + " again"
	}
}

// whatWorks tries the passwords, since after a failure only a try tells.
func (s *session) whatWorks(ctx context.Context) []string {
	var lines []string
	if s.plan.Disk != nil {
		lines = append(lines, "disk: "+s.diskState(ctx))
	}
	if s.plan.Account != nil {
		lines = append(lines, "account: "+s.accountState())
	}
	return lines
}

func (s *session) diskState(ctx context.Context) string {
	h, err := s.volume.Header()
	if err != nil {
		return err.Error()
	}
	var works []string
	for _, secret := range []struct {
		name  string
		value []byte
	}{{"old", s.secrets.current}, {"new", s.secrets.changed}} {
		if slot, err := s.volume.Opens(ctx, secret.value, h.Typed()); err == nil {
			works = append(works, fmt.Sprintf("the %s passphrase (key slot %d)", secret.name, slot))
		}
	}
	if len(works) == 0 {
		return "neither passphrase could be tested"
	}
	return strings.Join(works, " and ") + " opens it"
}

func (s *session) accountState() string {
	hash, err := s.shadowHash()
	if err != nil {
		return err.Error()
	}
	if same, err := passwd.Verify(s.secrets.changed, hash); err == nil && same {
		return s.plan.Account.Name + " has the new password"
	}
	return s.plan.Account.Name + " has the old password"
}

func (s *session) addPassphrase(ctx context.Context) error {
	return s.volume.Add(ctx, s.plan.Disk.NewSlot, s.secrets.current, s.secrets.changed, false)
}

// removeAdded removes the slot of the new passphrase, if it got that far.
func (s *session) removeAdded(ctx context.Context) error {
	h, err := s.volume.Header()
	if err != nil {
		return err
	}
	if _, there := h.Slots[s.plan.Disk.NewSlot]; !there {
		return nil
	}
	return s.volume.Remove(ctx, s.plan.Disk.NewSlot, s.secrets.current)
}

func (s *session) removeOld(ctx context.Context) error {
	return s.volume.Remove(ctx, s.plan.Disk.OldSlot, s.secrets.changed)
}

func (s *session) enrol(ctx context.Context) error {
	e := tpm2.Enrolment{Volume: s.volume, Policy: s.plan.TPM2.Policy, TPM: s.hooks.TPM}
	passphrase := s.secrets.changed
	if s.plan.Disk == nil {
		passphrase = s.secrets.current
	}
	return e.Apply(ctx, passphrase, s.secrets.pin)
}

// accountChange is the step of the account: the file, the activation, and the
// check that the system has taken the hash over.
type accountChange struct {
	*session

	// before is the file's content, nil where there was none.
	before    []byte
	touched   bool
	activated bool
}

func (a *accountChange) do(ctx context.Context) error {
	file := a.plan.Account.HashFile
	before, err := a.env.Host.Files.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	a.before = before
	hash, err := passwd.Hash(a.secrets.changed)
	if err != nil {
		return err
	}
	a.touched = true
	if err := settings.WriteSecret(a.env.Host.Files, file, []byte(hash+"\n")); err != nil {
		return err
	}
	a.activated = true
	if err := a.activate(ctx); err != nil {
		return err
	}
	now, err := a.shadowHash()
	if err != nil {
		return err
	}
	if now != hash {
		return fmt.Errorf("after the activation %s has another hash for %s: the account must be declared with "+
			"hashedPasswordFile and users.mutableUsers must be false", shadowFile, a.plan.Account.Name)
	}
	return nil
}

// undo puts the old hash back, and activates it where the new one had been.
func (a *accountChange) undo(ctx context.Context) error {
	if !a.touched {
		return nil
	}
	file := a.plan.Account.HashFile
	if a.before == nil {
		if err := a.env.Host.Files.Remove(file); err != nil {
			return err
		}
	} else if err := settings.WriteSecret(a.env.Host.Files, file, a.before); err != nil {
		return err
	}
	if !a.activated {
		return nil
	}
	return a.activate(ctx)
}

func (a *accountChange) activate(ctx context.Context) error {
	_, err := a.env.Host.Run(ctx, run.New(a.env.Host.Files.Path(activate)))
	return err
}

func (s *session) shadowHash() (string, error) {
	file, err := s.env.Host.Files.Open(shadowFile)
	if err != nil {
		return "", err
	}
	defer file.Close()
	return passwd.ShadowHash(file, s.plan.Account.Name)
}

// tell says what was done and what the owner should know now.
func (s *session) tell() error {
	u := s.env.UI
	if d := s.plan.Disk; d != nil {
		s.result.Disk = &DiskResult{Device: d.Device, Slot: d.NewSlot, Others: others(s.header, d)}
		u.Donef("%s opens with the new passphrase (key slot %d)", d.Device, d.NewSlot)
		if d.KeepOld == "" {
			s.result.Disk.Removed = &d.OldSlot
		} else {
			u.Infof("key slot %d, by which you came in, stays: %s", d.OldSlot, d.KeepOld)
		}
		for _, slot := range s.result.Disk.Others {
			u.Infof("key slot %d (%s) also opens it, as before", slot, words(s.header.KindOf(slot)))
		}
		u.Hintf("a backup of the disk's header that was made earlier still opens with the old passphrase: destroy it")
	}
	if a := s.plan.Account; a != nil {
		s.result.Account = &AccountResult{Name: a.Name}
		u.Donef("%s has the new password", a.Name)
		u.Hintf("a desktop's wallet (KWallet, GNOME Keyring) keeps the old password: it asks for it at the next login, " +
			"and can be changed in the wallet's own settings")
	}
	if s.plan.TPM2 != nil {
		s.result.TPM2 = s.plan.TPM2
		u.Donef("the TPM is enrolled: %s", s.plan.TPM2.Policy)
	}
	if s.options.JSON {
		return u.JSON(s.result)
	}
	return nil
}

func words(kind luks.Kind) string {
	if kind == luks.Recovery {
		return "recovery key"
	}
	return "passphrase"
}

// dryRun shows the plan; no password is asked for.
func (s *session) dryRun() error {
	if s.options.JSON {
		return s.env.UI.JSON(s.plan)
	}
	lines := s.plan.Lines()
	for i, line := range lines {
		lines[i] = fmt.Sprintf("%d. %s", i+1, line)
	}
	return s.env.UI.Print(strings.Join(lines, "\n"))
}
