package install

import (
	"fmt"
	"path"
	"slices"

	"nixos-go/pkg/nix"
	"nixos-go/pkg/run"
	"nixos-go/pkg/settings"
)

// stepName is a step as --from names it.
type stepName string

const (
	stepPartition     stepName = "partition"     // wipe, partition, format, mount
	stepMount         stepName = "mount"         // mount what is there
	stepConfiguration stepName = "configuration" // the flake and config.json
	stepSecrets       stepName = "secrets"       // the hash of the password
	stepInstall       stepName = "install"       // nixos-install
	stepPermissions   stepName = "permissions"   // owners and modes
	stepClean         stepName = "clean"         // CLEAN, last of all
	stepFinish        stepName = "finish"        // what comes next
)

// allSteps are the steps of an installation, in order. Mounting comes in where a
// later step is the first and the target is not mounted.
var allSteps = []stepName{
	stepPartition, stepConfiguration, stepSecrets, stepInstall, stepPermissions, stepClean, stepFinish,
}

// step is a step with what it runs.
type step struct {
	name stepName
	does string
	// commands are the programs that it runs, in order; steps without any work
	// on files.
	commands []run.Command
}

// target is where the flake lies in the installed system.
const target = "/etc/nixos"

// plan is what the request comes to, beginning with a step.
func (r request) plan(from stepName) []step {
	if r.mountOnly {
		return []step{r.mount()}
	}
	begin := max(slices.Index(allSteps, from), 0)
	steps := make([]step, 0, len(allSteps))
	for _, name := range allSteps[begin:] {
		steps = append(steps, r.step(name))
	}
	return steps
}

func (r request) mount() step {
	return step{stepMount, "mount the disk of " + r.host.Name + " at " + r.root, []run.Command{r.disko(false)}}
}

func (r request) disko(wipe bool) run.Command {
	return r.flake.Disko(settings.Configuration(r.host.Name, settings.DiskOperation), wipe)
}

func (r request) step(name stepName) step {
	s := step{name: name}
	switch name {
	case stepPartition:
		s.does = fmt.Sprintf("wipe %s, make the partitions and file systems of %s, mount them at %s", r.device(), r.host.Name, r.root)
		s.commands = []run.Command{r.disko(true)}
	case stepConfiguration:
		s.does = fmt.Sprintf("copy the flake from %s to %s", r.flake.Dir(), r.below(target))
		s.commands = []run.Command{r.copyFlake()}
	case stepSecrets:
		s.does = "write the hash of the admin's password to where it persists"
	case stepInstall:
		s.does = "build and install " + r.configuration()
		s.commands = []run.Command{r.targetFlake().Install(r.configuration(), r.root)}
	case stepPermissions:
		s.does = "give the configuration to the admin, the secrets to root"
	case stepClean:
		s.does = "take CLEAN, the state that every boot goes back to"
	case stepFinish:
		s.does = "offer what comes next"
	case stepMount:
		return r.mount()
	}
	return s
}

// below is a path of the target as this system sees it.
func (r request) below(name string) string { return path.Join(r.root, name) }

// device is the disk as the host names it.
func (r request) device() string {
	if r.settings == nil {
		return ""
	}
	return r.settings.Disk.Device
}

// configuration is what is installed: without Secure Boot, whose keys are made
// on the running machine.
func (r request) configuration() string {
	return settings.Configuration(r.host.Name, settings.StandardBoot)
}

// targetFlake is the copy in the installed system.
func (r request) targetFlake() nix.Flake {
	return nix.Flake{Top: r.below(target), Owner: r.targetOwner}
}

// copyName is the folder of a copy that is not complete yet.
const copyName = "/etc/.nixos-incomplete"

// copyFlake copies the whole repository, what is not committed included.
func (r request) copyFlake() run.Command {
	return run.New("cp", "--archive", "--no-preserve=ownership", "--no-target-directory", r.flake.Dir(), r.below(copyName))
}
