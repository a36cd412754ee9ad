package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/testx"
	"nixos-go/pkg/testx/model"
)

const (
	diskSize = 8 << 30 // sparse
	diskNeed = 1 << 30 // what must be free behind it
)

// disk is the disk of the demo:
//
//	@root                    etc (a copy of this machine's), usr, var, tmp
//	@home                    demo, somebody's new home
//	@snapshots/@root/CLEAN
//	@snapshots/@home/CLEAN
type disk struct {
	loop   *testx.LoopDevice
	top    *os.File // the mount, which has no mount point
	folder string   // of the plan and the report; goes at the end
	plan   *reset.PlanFile
}

// newDisk makes the disk and mounts it where nobody sees it.
func newDisk(ctx context.Context) (_ *disk, err error) {
	d := &disk{}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if d.folder, err = os.MkdirTemp("", "nixos-go-demo-"); err != nil {
		return nil, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(d.folder, &st); err != nil {
		return nil, &os.PathError{Op: "statfs", Path: d.folder, Err: err}
	}
	if free := st.Bavail * uint64(st.Bsize); free < diskNeed {
		return nil, &os.PathError{Op: "make a disk in", Path: d.folder, Err: unix.ENOSPC}
	}
	for _, module := range []string{"loop", "btrfs"} {
		_ = exec.CommandContext(ctx, "modprobe", module).Run() // it may be there already, or built in
	}
	image := filepath.Join(d.folder, "disk")
	if d.loop, err = testx.AttachLoop(image, diskSize); err != nil {
		return nil, wrapDisk(err)
	}
	// From here on the loop device alone holds the file.
	if err := os.Remove(image); err != nil {
		return nil, err
	}
	mkfs := exec.CommandContext(ctx, "mkfs.btrfs", "--quiet", "--nodiscard", "--label", "nixos-go-demo", d.loop.Path)
	if out, err := mkfs.CombinedOutput(); err != nil {
		return nil, wrapDisk(fmt.Errorf("mkfs.btrfs: %w\n%s", err, out))
	}
	if d.top, err = btrfs.Mount(d.loop.Path, btrfs.MountOptions{}); err != nil {
		return nil, wrapDisk(err)
	}
	return d, nil
}

// close undoes the mount and the device, and removes the folder.
func (d *disk) close() error {
	var errs []error
	if d.top != nil {
		errs = append(errs, d.top.Close())
	}
	if d.loop != nil {
		errs = append(errs, d.loop.Detach())
	}
	if d.folder != "" {
		errs = append(errs, os.RemoveAll(d.folder))
	}
	return errors.Join(errs...)
}

// path names something on the disk for this process and its children.
func (d *disk) path(parts ...string) string {
	return filepath.Join(append([]string{fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), d.top.Fd())}, parts...)...)
}

// in opens a directory of the disk for one call.
func (d *disk) in(path string, call func(*os.File) error) error {
	f, err := os.Open(d.path(path))
	if err != nil {
		return err
	}
	defer f.Close()
	return call(f)
}

// create makes a subvolume.
func (d *disk) create(path string) error {
	return d.in(filepath.Dir(path), func(dir *os.File) error { return btrfs.Create(dir, filepath.Base(path)) })
}

func (d *disk) sync() error { return btrfs.Sync(d.top) }

// volumes are those of the plan.
func volumes() []reset.PlanFileVolume {
	return []reset.PlanFileVolume{
		{
			Name: "@root", MountPoint: "/",
			Keep: []string{"/etc/machine-id", "/etc/ssh", "/var/lib"}, Exclude: []string{},
		},
		{
			Name: "@home", MountPoint: "/home",
			Keep:    []string{"/*/.mozilla", "/*/Documents", "/*/Projects"},
			Exclude: []string{"/*/.mozilla/firefox/*/cache2", "/*/Projects/*/build"},
		},
	}
}

// layOut makes the volumes and takes CLEAN of them.
func (d *disk) layOut(ctx context.Context) (amount, error) {
	d.plan = &reset.PlanFile{
		Version: reset.PlanFileVersion, Device: d.loop.Path, Snapshots: reset.DefaultSnapshots, Clean: reset.NameClean,
		Mode: reset.ModeReset, Revision: 1, Volumes: volumes(),
	}
	for _, name := range []string{"@root", "@home", reset.DefaultSnapshots} {
		if err := d.create(name); err != nil {
			return amount{}, err
		}
	}
	if err := os.Chmod(d.path(reset.DefaultSnapshots), 0o700); err != nil {
		return amount{}, err
	}
	for _, dir := range []string{"@root/tmp", "@root/usr/local/bin", "@root/var/lib", "@root/var/log", "@home/demo"} {
		if err := os.MkdirAll(d.path(dir), 0o755); err != nil {
			return amount{}, err
		}
	}
	w := &writer{disk: d}
	w.tree(ctx, "/etc", "@root")
	w.file("@home/demo/.bashrc", "# .bashrc\nalias ll='ls -l'\n")
	w.file("@home/demo/.profile", "# .profile\n. ~/.bashrc\n")
	w.file("@home/demo/.config/user-dirs.dirs", "XDG_DOWNLOAD_DIR=\"$HOME/Downloads\"\n")
	w.file("@root/etc/machine-id", "0b29ebd57cb7490f988a046c035bf449\n")
	w.file("@root/etc/ssh/sshd_config", "PermitRootLogin no\n")
	w.file("@root/etc/motd", "Welcome.\n")
	if w.err != nil {
		return amount{}, w.err
	}
	for _, v := range d.plan.Volumes {
		if err := reset.TakeClean(ctx, d.top, d.plan, v.Name, reset.CleanupOptions{}); err != nil {
			return amount{}, err
		}
	}
	text, err := json.MarshalIndent(d.plan, "", "  ")
	if err != nil {
		return amount{}, err
	}
	return w.total, os.WriteFile(d.planPath(), append(text, '\n'), 0o600)
}

func (d *disk) planPath() string   { return filepath.Join(d.folder, "plan.json") }
func (d *disk) reportPath() string { return filepath.Join(d.folder, "run", "report.json") }

// copyTree copies a folder into another, as it is.
func copyTree(ctx context.Context, from, into string) error {
	out, err := exec.CommandContext(ctx, "cp", "-a", from, into).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cp -a %s: %w\n%s", from, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// read reads a volume or snapshot whole.
func (d *disk) read(path string) (model.Tree, error) { return model.Read(d.path(path)) }

// state is all live volumes, by name.
type state map[string]model.Tree

// live reads every volume.
func (d *disk) live() (state, error) {
	s := state{}
	for _, v := range d.plan.Volumes {
		tree, err := d.read(v.Name)
		if err != nil {
			return nil, err
		}
		s[v.Name] = tree
	}
	return s, nil
}

// expect says what a reset must make of a state.
func (d *disk) expect(old state) (state, error) {
	s := state{}
	for _, v := range d.plan.Volumes {
		clean, err := d.read(filepath.Join(reset.DefaultSnapshots, v.Name, reset.NameClean))
		if err != nil {
			return nil, err
		}
		s[v.Name] = model.Expect(old[v.Name], clean, v.Keep, v.Exclude)
	}
	return s, nil
}

// errDiffers says that what is on the disk is not what the rules demand.
var errDiffers = errors.New("the disk is not what the rules demand")

// check compares the volumes with a state, and gives the number of paths.
func (d *disk) check(want state) (int, error) {
	got, err := d.live()
	if err != nil {
		return 0, err
	}
	paths := 0
	for name, tree := range want {
		if diff := model.Diff(tree, got[name]); diff != "" {
			return 0, fmt.Errorf("%w: %s:\n%s", errDiffers, name, diff)
		}
		paths += len(tree)
	}
	return paths, nil
}
