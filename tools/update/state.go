package update

import (
	"context"
	"path"
	"strings"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/run"
	"nixos-go/pkg/settings"
)

// generations says which systems the machine runs and boots, by store paths;
// empty where there is none.
type generations struct {
	running, boots string
	kernel         string
}

func currentGenerations(files run.Files) generations {
	return generations{
		running: system(files, settings.RunningSystem),
		boots:   system(files, settings.SystemProfile),
		kernel:  system(files, path.Join(settings.RunningSystem, "kernel")),
	}
}

// system is where a link to a system leads, as the machine sees it.
func system(files run.Files, link string) string {
	to, err := files.Resolve(link)
	if err != nil {
		return ""
	}
	return path.Clean("/" + strings.TrimPrefix(to, strings.TrimSuffix(files.Root(), "/")))
}

// explain adds to a failed activation what state the machine is in, and how to
// go back.
func (s *session) explain(ctx context.Context, err error) error {
	if s.r.targetHost != "" {
		return clikit.WithHint(err, "look at %s: ssh %s systemctl --failed", s.r.targetHost, s.r.targetHost)
	}
	now := currentGenerations(s.env.Host.Files)
	switched, boots := now.running != s.before.running, now.boots != s.before.boots
	if switched {
		s.failedUnits(ctx)
	}
	switch {
	case switched && boots:
		return clikit.WithHint(err, "the new system runs, though not all of it came up, and the next boot starts it; "+
			"go back: sudo nixos-update --rollback")
	case switched:
		return clikit.WithHint(err, "the new system runs, though not all of it came up; the next boot starts the old one; "+
			"go back now: sudo nixos-update --rollback, or reboot")
	case boots:
		return clikit.WithHint(err, "the old system still runs, but the next boot starts the new one; "+
			"go back: sudo nixos-update --rollback --boot")
	}
	return clikit.WithHint(err, "nothing was activated: the machine runs, and boots, the system it had")
}

// failedUnits names the services that did not come up.
func (s *session) failedUnits(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	result, err := s.env.Host.Run(ctx, run.New("systemctl", "list-units", "--failed", "--plain", "--no-legend"))
	if err != nil {
		return // the failure itself is what matters
	}
	var units []string
	for line := range strings.Lines(string(result.Stdout)) {
		if fields := strings.Fields(line); len(fields) > 0 {
			units = append(units, fields[0])
		}
	}
	if len(units) > 0 {
		s.env.UI.Warnf("failed: %s", strings.Join(units, ", "))
	}
}
