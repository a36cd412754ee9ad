package snapshot

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/run"
	"nixos-go/pkg/settings"
	"nixos-go/pkg/ui"
)

func (t tool) verifyCommand() *cli.Command {
	return &cli.Command{
		Name: "verify", Usage: "check whether the next boot has what it needs", ArgsUsage: "[VOLUME…]",
		Description: "Asks the reset itself, by the rules of the default generation, whether it would work, and looks at " +
			"what it relies on: the plan, the device, the subvolumes and their flags, the metadata of CLEAN, the " +
			"proof by which it need not compare everything, free space, swap files, a hibernated image. Nothing " +
			"is written. The exit status is 1 if a boot would leave a volume as it is; warnings do not count.",
		Action: t.verify,
	}
}

// status is how a check ended.
type status string

const (
	statusOK      status = "ok"
	statusWarning status = "warning"
	statusFailed  status = "failed"
)

// verified is the result of verify.
type verified struct {
	OK     bool    `json:"ok"`
	Checks []check `json:"checks"`
}

// check is one thing that was looked at.
type check struct {
	Check   string `json:"check"`
	Volume  string `json:"volume,omitempty"`
	Status  status `json:"status"`
	Message string `json:"message"`
	Cure    string `json:"cure,omitempty"`
}

// verifier looks at a machine.
type verifier struct {
	tool
	*machine

	checks []check
}

func (v *verifier) add(c check) { v.checks = append(v.checks, c) }

func (v *verifier) okf(name, volume, format string, args ...any) {
	v.add(check{Check: name, Volume: volume, Status: statusOK, Message: fmt.Sprintf(format, args...)})
}

func (v *verifier) warnf(name, volume, cure, format string, args ...any) {
	v.add(check{Check: name, Volume: volume, Status: statusWarning, Message: fmt.Sprintf(format, args...), Cure: cure})
}

func (v *verifier) failf(name, volume, cure, format string, args ...any) {
	v.add(check{Check: name, Volume: volume, Status: statusFailed, Message: fmt.Sprintf(format, args...), Cure: cure})
}

func (t tool) verify(c *cli.Context) error {
	if err := t.env.RequireRoot("nixos-snapshot verify"); err != nil {
		return err
	}
	v := &verifier{tool: t}
	if err := v.run(c); err != nil {
		return err
	}
	return v.show(clikit.OptionsOf(c).JSON)
}

// run makes all checks that can be made. Its error is of the command line.
func (v *verifier) run(c *cli.Context) error {
	var err error
	v.machine, err = v.readPlan(c, nextBoot)
	if err != nil {
		v.failf("plan", "", "", "%v", err)
		return nil
	}
	v.checkPlan()
	names, err := v.volumes(c.Args().Slice())
	if err != nil {
		return err
	}
	if err := v.openTop(c.String("device"), true); err != nil {
		v.failf("device", "", "", "%v", err)
		return nil
	}
	defer v.close()
	v.okf("device", "", "%s holds the file system", cmp.Or(c.String("device"), v.plan.Device))
	v.checkHibernation()
	v.checkSnapshotsFolder()
	v.checkSpace()
	v.checkLastReset(names)
	v.checkVolumes(c.Context, names)
	return nil
}

// checkPlan looks at the plan of the next boot and at that of the running system.
func (v *verifier) checkPlan() {
	v.okf("plan", "", "%s is valid: %s", v.source, plural(int64(len(v.plan.Volumes)), "volume"))
	switch v.plan.Mode {
	case reset.ModeReset, "":
	case reset.ModeSnapshotOnly, reset.ModeDisabled, reset.ModeRestorePrevious, reset.ModeRestorePenultimate:
		v.warnf("plan", "", "set settings.disk.immutability.mode to reset", "its mode is %s: the next boot does not reset anything", v.plan.Mode)
	}
	if v.source != settings.SystemProfile+settings.PlanFile {
		return
	}
	now, err := readPlanFile(v.files, settings.PlanFile)
	switch {
	case err != nil:
		v.warnf("plan", "", "", "the running system's cannot be read: %v", err)
	case now == nil:
		v.warnf("plan", "", "", "the running system has none: the next boot is the first that resets")
	case now.Revision != v.plan.Revision:
		v.warnf("plan", "", "sudo nixos-diff shows what that means", "the next boot starts another generation than the running one, by its rules")
	}
}

// hibernateVariable is systemd's, set while an image waits
// (systemd-hibernate-resume.service(8)).
const hibernateVariable = "/sys/firmware/efi/efivars/HibernateLocation-8cf2644b-4b0b-428f-9387-6d876050dc67"

func (v *verifier) checkHibernation() {
	if v.files.Exists(hibernateVariable) {
		v.failf("hibernation", "", "systemctl start systemd-hibernate-clear.service", "an image seems to wait for being resumed: no reset touches the disk then")
	}
}

// checkSnapshotsFolder looks at who can look into the snapshots.
func (v *verifier) checkSnapshotsFolder() {
	info, err := os.Lstat(fmt.Sprintf("/proc/self/fd/%d/%s", v.top.Fd(), v.plan.Snapshots))
	if err != nil {
		return // the reset says what is wrong with it
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		v.warnf("snapshots", "", fmt.Sprintf("chmod 0700 where %s is mounted", v.plan.Snapshots),
			"%s has mode %04o: others can look into old states, with old permissions", v.plan.Snapshots, perm)
		return
	}
	v.okf("snapshots", "", "%s is closed to everybody but root", v.plan.Snapshots)
}

// Less free space than both of these is worth a warning: bytes, and a part of the whole.
const (
	lowSpace     = 512 << 20
	lowSpacePart = 10
)

func (v *verifier) checkSpace() {
	free, total, err := space(v.top)
	if err != nil {
		v.failf("space", "", "", "%v", err)
		return
	}
	if free < lowSpace && free < total/lowSpacePart {
		v.warnf("space", "", "sudo nixos-snapshot gc; btrfs filesystem usage tells what holds the rest",
			"%s are free: on a full disk a volume stays as it is", ui.Size(int64(free)))
		return
	}
	v.okf("space", "", "%s are free", ui.Size(int64(free)))
}

// checkLastReset says whether the reset of this boot worked.
func (v *verifier) checkLastReset(names []string) {
	list, _, err := readBoot(v.files)
	if err != nil {
		v.warnf("last reset", "", "journalctl -b -u immutability.service", "%v", err)
		return
	}
	for _, volume := range list.Volumes {
		if !slices.Contains(names, volume.Name) {
			continue
		}
		if volume.Outcome == reset.OutcomeFailed {
			v.warnf("last reset", volume.Name, "", "this boot left it as it was: %s", volume.Error)
			continue
		}
		v.okf("last reset", volume.Name, "this boot: %s", volume.Outcome)
	}
}

// show shows the result. A check that failed sets the exit status.
func (v *verifier) show(asJSON bool) error {
	result := verified{OK: true, Checks: v.checks}
	for _, c := range v.checks {
		result.OK = result.OK && c.Status != statusFailed
	}
	if asJSON {
		if err := v.env.UI.JSON(result); err != nil {
			return err
		}
	} else if err := v.showChecks(); err != nil {
		return err
	}
	if !result.OK {
		v.env.UI.Errorf("the next boot would not do all it should")
		return clikit.ErrReported
	}
	v.env.UI.Donef("the next boot has what it needs")
	return nil
}

func (v *verifier) showChecks() error {
	styles := map[status]ui.Style{statusOK: ui.Green, statusWarning: ui.Yellow, statusFailed: ui.Red}
	var b strings.Builder
	for _, c := range v.checks {
		about := c.Check
		if c.Volume != "" {
			about = c.Volume + " " + about
		}
		mark := v.env.UI.Out(styles[c.Status], string(c.Status)) + strings.Repeat(" ", len(statusWarning)-len(c.Status))
		fmt.Fprintf(&b, "%s  %s: %s\n", mark, about, c.Message)
		if c.Cure != "" {
			fmt.Fprintf(&b, "%s  → %s\n", strings.Repeat(" ", len(statusWarning)), c.Cure)
		}
	}
	return v.env.UI.Print(b.String())
}

// swapFiles lists the files that are in use as swap (proc_swaps(5)).
func swapFiles(files run.Files) []string {
	text, err := files.ReadFile("/proc/swaps")
	if err != nil {
		return nil // no swap in this kernel
	}
	var out []string
	for i, line := range strings.Split(string(text), "\n") {
		fields := strings.Fields(line)
		if i > 0 && len(fields) > 1 && fields[1] == "file" {
			out = append(out, strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[0]))
		}
	}
	return out
}
