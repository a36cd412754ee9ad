package update

import (
	"fmt"

	"nixos-go/pkg/nix"
	"nixos-go/pkg/run"
)

// kind is what a step does.
type kind string

const (
	stepUpgrade  kind = "upgrade"  // new revisions of the inputs
	stepClean    kind = "clean"    // garbage
	stepBuild    kind = "build"    // the new system, without using it
	stepCompare  kind = "compare"  // what changes
	stepConfirm  kind = "confirm"  // the owner's answer
	stepActivate kind = "activate" // nixos-rebuild
	stepLog      kind = "log"      // what home-manager said
	stepReboot   kind = "reboot"
)

// step is one part of an update.
type step struct {
	kind kind
	// does says it in words.
	does string
	// command is what runs; no program where the step only looks or asks.
	command run.Command
}

// resultLink is what nixos-rebuild build makes in its working directory; while
// it is there, no garbage collection takes the new system away.
const resultLink = "result"

// plan is what the request comes to. work is a folder for the result of the
// build.
func (r request) plan(work string) []step {
	if r.rollback {
		return r.finish([]step{
			{stepConfirm, "ask whether to go back to the generation before", run.Command{}},
			{stepActivate, "go back to the generation before", nix.Rollback(r.action)},
		})
	}
	var steps []step
	if r.upgrade {
		steps = append(steps, step{stepUpgrade, "take the newest revisions of " + r.upgraded(), r.flake.Update(r.inputs...)})
	}
	if r.clean {
		steps = append(steps, step{
			stepClean, "delete generations older than " + r.olderThan + " and what nothing needs any more",
			nix.CollectGarbage(r.olderThan),
		})
	}
	if r.targetHost == "" {
		build := nix.Rebuild{Action: nix.Build, Configuration: r.configuration, BuildHost: r.buildHost}.Command(r.flake)
		build.Dir = work
		if r.buildHost != "" {
			build = overSSH(build)
		}
		steps = append(steps,
			step{stepBuild, "build " + r.configuration, build},
			step{stepCompare, "compare it with the running system", run.Command{}})
	}
	if r.action == nix.Build {
		if r.targetHost != "" {
			steps = append(steps, r.activate())
		}
		return steps
	}
	return r.finish(append(steps, step{stepConfirm, "ask whether to " + r.intent(), run.Command{}}, r.activate()))
}

// finish adds what follows an activation.
func (r request) finish(steps []step) []step {
	if r.targetHost == "" && r.action != nix.Boot {
		steps = append(steps, step{stepLog, "show what home-manager says", run.Command{}})
	}
	if r.reboot {
		steps = append(steps, step{stepReboot, "reboot", run.New("systemctl", "reboot")})
	}
	return steps
}

func (r request) activate() step {
	c := nix.Rebuild{
		Action: r.action, Configuration: r.configuration,
		TargetHost: r.targetHost, BuildHost: r.buildHost, InstallBootloader: r.bootloader,
	}.Command(r.flake)
	if r.targetHost != "" || r.buildHost != "" {
		c = overSSH(c)
	}
	return step{stepActivate, r.intent(), c}
}

// overSSH hands the terminal over: ssh may ask for a passphrase, or about a host
// key.
func overSSH(c run.Command) run.Command {
	c.Stream, c.Interactive = false, true
	return c
}

// intent says what becomes of the new system.
func (r request) intent() string {
	where := ""
	if r.targetHost != "" {
		where = " on " + r.targetHost
	}
	switch r.action {
	case nix.Boot:
		return "boot it next time" + where
	case nix.Test:
		return "switch to it until the next boot" + where
	case nix.Build:
		return "build it for " + r.targetHost
	case nix.Switch:
	}
	return "switch to it" + where
}

func (r request) upgraded() string {
	if len(r.inputs) == 0 {
		return "all inputs"
	}
	return fmt.Sprintf("the inputs %q", r.inputs)
}

type plannedStep struct {
	Step    string   `json:"step"`
	Does    string   `json:"does"`
	Command []string `json:"command,omitempty"`
}

// show shows a plan and does nothing.
func (t tool) show(r request, steps []step) error {
	list := make([]plannedStep, 0, len(steps))
	for _, s := range steps {
		p := plannedStep{Step: string(s.kind), Does: s.does}
		if s.command.Program != "" {
			p.Command = append([]string{s.command.Program}, s.command.Args...)
		}
		list = append(list, p)
	}
	if r.options.JSON {
		return t.env.UI.JSON(map[string]any{"applied": false, "configuration": r.configuration, "steps": list})
	}
	for i, s := range steps {
		text := fmt.Sprintf("%d. %s", i+1, s.does)
		if s.command.Program != "" {
			text += "\n   " + s.command.String()
		}
		if err := t.env.UI.Print(text); err != nil {
			return err
		}
	}
	return nil
}
