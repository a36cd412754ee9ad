package update

import (
	"context"
	"strings"

	"nixos-go/pkg/run"
)

// findHomeManager remembers the unit of the admin's home-manager and where its
// log ends now.
func (s *session) findHomeManager(ctx context.Context, path string) error {
	facts, err := s.newSettings(path)
	if err != nil || facts == nil || !facts.User.Admin.HomeManager {
		return err
	}
	s.homeManager = "home-manager-" + facts.User.Admin.Name + ".service"
	result, err := s.env.Host.Run(ctx, run.New("journalctl", "--unit", s.homeManager, "--lines", "0", "--show-cursor", "--quiet"))
	if err != nil {
		return nil //nolint:nilerr // without a journal there is no log to show
	}
	for line := range strings.Lines(string(result.Stdout)) {
		if cursor, found := strings.CutPrefix(line, "-- cursor: "); found {
			s.cursor = strings.TrimSpace(cursor)
		}
	}
	return nil
}

// log shows what home-manager has said since the switch began.
func (s *session) log(ctx context.Context) {
	if s.homeManager == "" {
		return
	}
	args := []string{"--unit", s.homeManager, "--output", "cat", "--no-pager", "--quiet"}
	if s.cursor != "" {
		args = append(args, "--after-cursor", s.cursor)
	} else {
		args = append(args, "--boot")
	}
	result, err := s.env.Host.Run(ctx, run.New("journalctl", args...))
	if err != nil {
		s.env.UI.Warnf("the log of home-manager cannot be read: %v", err)
		return
	}
	for line := range strings.Lines(string(result.Stdout)) {
		if line = strings.TrimSpace(line); line != "" {
			s.report.HomeManager = append(s.report.HomeManager, line)
		}
	}
	if len(s.report.HomeManager) > 0 {
		s.env.UI.Infof("home-manager says:\n%s", strings.Join(s.report.HomeManager, "\n"))
	}
}
