package resets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"nixos-go/pkg/reset"
)

// What is not a program of its own runs in a process of its own all the same, so
// that it can be traced and that its locks are its own: this program, called with
// helperWord.
const (
	helperWord    = "run-on-device"
	cleanupName   = "cleanup"
	takeCleanName = "take-clean"
)

// Helper does what a program is called for as a helper of the scenarios. It reports
// whether it was, and the exit status. Each program that runs scenarios has to ask
// it first; args are the arguments without the program's name.
func Helper(args []string, stderr io.Writer) (status int, called bool) {
	if len(args) == 0 || args[0] != helperWord {
		return 0, false
	}
	if err := help(args[1:]); err != nil {
		fmt.Fprintln(stderr, err)
		return 1, true
	}
	return 0, true
}

func help(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("%s: want a name, a plan and a device, got %q", helperWord, args)
	}
	f, err := os.Open(args[1])
	if err != nil {
		return err
	}
	p, err := reset.ParsePlanFile(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	switch name := args[0]; name {
	case cleanupName:
		return withTop(args[2], func(top *os.File) error {
			return reset.Cleanup(context.Background(), top, p, reset.CleanupOptions{})
		})
	case takeCleanName:
		return withTop(args[2], func(top *os.File) error { return takeMissingCleans(top, p) })
	default:
		return fmt.Errorf("%s: there is no %q", helperWord, name)
	}
}

func takeMissingCleans(top *os.File, p *reset.PlanFile) error {
	for _, v := range p.Volumes {
		err := reset.TakeClean(context.Background(), top, p, v.Name, reset.CleanupOptions{})
		if err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
	}
	return nil
}
