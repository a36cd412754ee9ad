package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nixos-go/pkg/reset"
	"nixos-go/pkg/testx/model"
	"nixos-go/pkg/ui"
)

// story is what the demo remembers of what it has shown.
type story struct {
	*teller

	disk    *disk
	options options

	clean      amount
	kept       state // the files that the first day wanted kept
	keptAmount amount
	lost       amount        // of the first day
	reset      time.Duration // of the first day
	evening    state         // before the last reset
	boots      int
}

// show tells the whole story, and leaves nothing behind.
func show(ctx context.Context, o options, u *ui.UI) (err error) {
	if os.Geteuid() != 0 {
		return errNotRoot
	}
	start := time.Now()
	s := &story{teller: &teller{UI: u}, options: o}
	_ = u.Print(u.Out(ui.Bold, "nixos-go: a machine that starts each day as declared, with your files in it"))
	if s.disk, err = newDisk(ctx); err != nil {
		return err
	}
	err = s.tell(ctx)
	if closeErr := s.disk.close(); closeErr != nil {
		err = errors.Join(err, fmt.Errorf("%w: %w", errLeft, closeErr))
	}
	if err != nil {
		return err
	}
	return u.Printf("\n%s", u.Out(ui.Dim, duration(time.Since(start))+" in all. Nothing is left behind: no mount, no loop device, no file."))
}

// tell tells the chapters.
func (s *story) tell(ctx context.Context) error {
	for _, chapter := range []func(context.Context) error{
		s.installed, s.dayOfWork, s.beforeTheBoot, s.theBoot, s.cuts, s.yesterday, s.summary,
	} {
		if err := chapter(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) installed(ctx context.Context) error {
	s.chapter("A disk, as the installer leaves it")
	var err error
	if s.clean, err = s.disk.layOut(ctx); err != nil {
		return err
	}
	s.sayf("BTRFS on %s. @root holds a copy of this machine's /etc, @home a fresh home; a read-only snapshot of each is CLEAN, the declared state. All else than this goes back to it at every boot:", s.disk.loop.Path)
	s.row(ui.Green, "keep   ", "/etc/machine-id  /etc/ssh  /var/lib", "")
	s.row(ui.Green, "       ", "~/.mozilla  ~/Documents  ~/Projects", "")
	s.row(ui.Red, "exclude", "~/.mozilla/firefox/*/cache2  ~/Projects/*/build", "")
	b, err := s.boot(ctx, "initrd-reset") // the first boot
	if err != nil {
		return err
	}
	s.sayf("CLEAN has %s. The first boot took %s.", s.clean, duration(b.took))
	return nil
}

// boot runs the binary under a name on a disk that is in rest.
func (s *story) boot(ctx context.Context, name string) (boot, error) {
	if err := s.disk.sync(); err != nil { // a boot begins with nothing in memory
		return boot{}, err
	}
	s.boots++
	return s.disk.boot(ctx, s.options.binary, name)
}

func (s *story) dayOfWork(ctx context.Context) error {
	s.chapter("A day of work")
	for _, p := range day(s.options.source) {
		written, err := s.disk.happen(ctx, p)
		if err != nil {
			return err
		}
		if p.kept {
			s.row(ui.Green, "kept", p.name, written.String())
		} else {
			s.row(ui.Red, "not ", p.name, written.String())
		}
	}
	return s.disk.sync()
}

func (s *story) beforeTheBoot(ctx context.Context) error {
	s.chapter("What would the next boot wipe?")
	old, err := s.disk.live()
	if err != nil {
		return err
	}
	want, err := s.disk.expect(old)
	if err != nil {
		return err
	}
	b, changes, err := s.disk.preview(ctx, s.options.binary)
	if err != nil {
		return err
	}
	s.row(ui.Dim, "$", s.Out(ui.Bold, b.command), "")
	for _, v := range s.disk.plan.Volumes {
		s.previewed(v, changes[v.Name], old[v.Name], want[v.Name])
	}
	if _, err := s.disk.check(old); err != nil {
		return fmt.Errorf("a dry run changed something: %w", err)
	}
	s.row(ui.Blue, "checked", "it has changed nothing", duration(b.took))
	s.kept, s.keptAmount, err = s.disk.keptFiles(old)
	s.lost = lost(old, want)
	return err
}

func (s *story) theBoot(ctx context.Context) error {
	s.chapter("The next boot")
	old, err := s.disk.live()
	if err != nil {
		return err
	}
	want, err := s.disk.expect(old)
	if err != nil {
		return err
	}
	floor, err := s.disk.floor()
	if err != nil {
		return err
	}
	b, err := s.boot(ctx, "initrd-reset")
	if err != nil {
		return err
	}
	s.reset = b.took
	s.ran(b)
	paths, err := s.disk.check(want)
	if err != nil {
		return err
	}
	now, err := s.disk.live()
	if err != nil {
		return err
	}
	same, gone := survived(s.kept, now)
	if gone > 0 {
		return fmt.Errorf("%w: %d kept files are not as they were", errDiffers, gone)
	}
	took, err := s.disk.cleanup(ctx)
	if err != nil {
		return err
	}
	s.row(ui.Bold, "took    ", fmt.Sprintf("%s; two snapshots and a sync alone take %s on this disk", duration(s.reset), duration(floor)), "")
	s.row(ui.Green, "survived", fmt.Sprintf("%s: each byte, owner, mode and time", amount{same, s.keptAmount.bytes}), "")
	s.row(ui.Red, "wiped   ", fmt.Sprintf("%s: deleted after the boot, in %s", s.lost, duration(took)), "")
	s.row(ui.Blue, "checked ", grouped(paths)+" paths against a slow model of the rules: no difference", "")
	return nil
}

// cuts lets two resets die half way.
func (s *story) cuts(ctx context.Context) error {
	s.chapter("The power fails during a reset, twice")
	for n, cut := range []struct{ step, when string }{
		{"apply", "while the new state is made, beside the old one"},
		{"exchange", "right after the exchange of the old state and the new one"},
	} {
		if err := s.cut(ctx, n+1, cut.step, cut.when); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) cut(ctx context.Context, n int, step, when string) error {
	if _, err := s.disk.happen(ctx, nextDay(n)); err != nil {
		return err
	}
	if err := s.disk.sync(); err != nil {
		return err
	}
	old, err := s.disk.live()
	if err != nil {
		return err
	}
	s.evening = old
	want, err := s.disk.expect(old)
	if err != nil {
		return err
	}
	if err := s.disk.cutOff(ctx, step); err != nil {
		return err
	}
	found, err := s.found(old, want)
	if err != nil {
		return err
	}
	s.row(ui.Red, "cut    ", when, "")
	s.row(ui.Dim, "found  ", found, "")
	b, err := s.boot(ctx, "initrd-reset")
	if err != nil {
		return err
	}
	s.ran(b)
	paths, err := s.disk.check(want)
	if err != nil {
		return err
	}
	s.row(ui.Blue, "checked", grouped(paths)+" paths: as if nothing had happened", duration(b.took))
	// The previous state is wanted in the next chapter: what the cleanup destroys
	// is older.
	_, err = s.disk.cleanup(ctx)
	return err
}

// found tells what a cut has left: each volume is whole, and old or new.
func (s *story) found(old, want state) (string, error) {
	now, err := s.disk.live()
	if err != nil {
		return "", err
	}
	var texts []string
	for _, v := range s.disk.plan.Volumes {
		is := ""
		switch {
		case model.Diff(old[v.Name], now[v.Name]) == "":
			is = "old"
		case s.isNew(v, want[v.Name], now[v.Name]):
			is = "new"
		default:
			return "", fmt.Errorf("%w: %s is neither the old state nor the new one:\n%s", errDiffers, v.Name, model.Diff(want[v.Name], now[v.Name]))
		}
		texts = append(texts, fmt.Sprintf("%s: the %s state, whole", v.Name, is))
	}
	return strings.Join(texts, "; "), nil
}

// isNew compares a volume with the new state. Nested subvolumes follow after the
// exchange, so they may not be there yet.
func (s *story) isNew(v reset.PlanFileVolume, want, now model.Tree) bool {
	nested := model.Tree{}
	for p, e := range want {
		if !inNested(want, p) {
			nested[p] = e
		}
	}
	return model.Diff(want, now) == "" || v.Name == "@root" && model.Diff(nested, now) == ""
}

func inNested(t model.Tree, path string) bool {
	for p := path; p != "." && p != ""; p = filepath.Dir(p) {
		if t[p].Subvolume {
			return true
		}
	}
	return false
}

func (s *story) yesterday(ctx context.Context) error {
	s.chapter("Back to yesterday")
	s.sayf("~/Downloads/notes-2.odt, written into the wrong folder, went with the last boot. The boot menu has an entry for that; it calls the program by another name:")
	const path = "@home/demo/Downloads/notes-2.odt"
	if exists(s.disk.path(path)) {
		return fmt.Errorf("%w: %s is there", errDiffers, path)
	}
	b, err := s.boot(ctx, "initrd-restore-previous")
	if err != nil {
		return err
	}
	s.ran(b)
	paths, err := s.disk.check(s.evening)
	if err != nil {
		return err
	}
	now, err := s.disk.live()
	if err != nil {
		return err
	}
	if same, gone := survived(s.kept, now); gone > 0 {
		return fmt.Errorf("%w: %d of %d kept files are not as they were", errDiffers, gone, same+gone)
	}
	s.row(ui.Blue, "checked", grouped(paths)+" paths: all as it was that evening, the file too", duration(b.took))
	return nil
}

func (s *story) summary(context.Context) error {
	s.chapter("In short")
	s.sayf("A boot puts the system back to what its configuration says, in %s here, because it looks at what changed and at nothing else. It wiped %s that nobody had asked to keep: caches, downloads, and a cron job from the web.", duration(s.reset), files(s.lost.files))
	s.sayf("The paths that the owner listed were left alone: %s, through %d boots, two of them cut off half way and finished by the next one, and a return to the day before. Nothing that was kept was lost; everything above was checked on the disk.", files(s.keptAmount.files), s.boots+2)
	return nil
}
