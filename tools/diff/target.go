package diff

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/run"
	"nixos-go/pkg/settings"
)

// target is what is compared: the plan, and the volumes of its file system.
type target struct {
	plan       *reset.PlanFile
	source     string // where the plan comes from
	device     string
	top        *os.File
	volumes    []*reset.VolumePreview
	mountPoint []string // of all volumes of the plan
}

func (t *target) close() {
	for _, v := range t.volumes {
		v.Close()
	}
	if t.top != nil {
		t.top.Close()
	}
}

// failed reports whether a volume could not be looked at.
func (t *target) failed() bool {
	return slices.ContainsFunc(t.volumes, func(v *reset.VolumePreview) bool { return v.Err != nil })
}

// at gives the volume that a path lies on, and the path in it.
func (t *target) at(abs string) (*reset.VolumePreview, string, error) {
	mountPoint := owner(abs, t.mountPoint)
	for _, v := range t.volumes {
		if v.Volume.MountPoint != mountPoint {
			continue
		}
		return v, pathInVolume(v, abs), v.Err
	}
	return nil, "", fmt.Errorf("%s is on no volume that is reset at boot", abs)
}

// pathInVolume is the path in a volume for one of the mounted system.
func pathInVolume(v *reset.VolumePreview, abs string) string {
	return "/" + strings.TrimPrefix(strings.TrimPrefix(abs, v.Volume.MountPoint), "/")
}

// absolutePath is the path of the mounted system for one of a volume.
func absolutePath(v *reset.VolumePreview, rel string) string {
	return path.Join(v.Volume.MountPoint, rel)
}

// open finds the plan and the file system, and makes the comparison.
func (t tool) open(ctx context.Context, r request) (*target, error) {
	tgt, err := t.readPlan(r.plan)
	if err != nil {
		return nil, err
	}
	var wanted []string
	for _, v := range tgt.plan.Volumes {
		tgt.mountPoint = append(tgt.mountPoint, v.MountPoint)
	}
	for _, v := range tgt.plan.Volumes {
		if r.wantsVolume(v.MountPoint, tgt.mountPoint) {
			wanted = append(wanted, v.Name)
		}
	}
	if len(wanted) == 0 {
		return nil, fmt.Errorf("no such path is on a volume that is reset at boot (%s)", strings.Join(tgt.mountPoint, ", "))
	}
	if err := t.findDevice(r, tgt); err != nil {
		return nil, err
	}
	if tgt.top, err = reset.OpenTop(tgt.device, true); err != nil {
		return nil, clikit.WithHint(err, "name the file system's device, or a folder where its top level is mounted, with --device")
	}
	stop := t.sayLater("still comparing: a volume that no reset has made yet is compared whole")
	defer stop()
	tgt.volumes, err = preview(ctx, tgt, reset.PreviewOptions{
		Volumes: wanted, SinceBoot: r.sinceBoot, Kept: r.kept, NoPlan: r.content != "",
	})
	if err != nil {
		return nil, err // the comparison may still be reading: it ends with the process
	}
	t.tellVolumes(r, tgt)
	return tgt, nil
}

// preview makes the comparison, and does not wait for its end when the context ends:
// it only reads.
func preview(ctx context.Context, tgt *target, options reset.PreviewOptions) ([]*reset.VolumePreview, error) {
	type outcome struct {
		volumes []*reset.VolumePreview
		err     error
	}
	done := make(chan outcome, 1)
	go func() {
		volumes, err := reset.Preview(tgt.top, tgt.plan, options)
		done <- outcome{volumes, err}
	}()
	select {
	case o := <-done:
		return o.volumes, o.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// tellVolumes says what is odd about the volumes.
func (t tool) tellVolumes(r request, tgt *target) {
	if mode := tgt.plan.Mode; mode != "" && mode != reset.ModeReset && !r.kept && r.content == "" {
		t.env.UI.Warnf("the plan's mode is %s: the next boot does not reset anything; shown is what a reset would do", mode)
	}
	for _, v := range tgt.volumes {
		for _, w := range v.Warnings {
			t.env.UI.Warnf("%s: %s", v.Volume.Name, w)
		}
		switch {
		case v.Err == nil:
		case r.sinceBoot || r.kept || r.content != "":
			t.env.UI.Errorf("%s cannot be compared: %v", v.Volume.Name, v.Err)
		default:
			t.env.UI.Errorf("the next boot leaves %s as it is: %v", v.Volume.Name, v.Err)
		}
	}
}

// sayLater says something if a work takes longer than a person likes to wait.
func (t tool) sayLater(text string) (stop func()) {
	const patience = 2 * time.Second
	timer := time.AfterFunc(patience, func() { t.env.UI.Infof("%s", text) })
	return func() { timer.Stop() }
}

// readPlan reads the plan of the next boot.
func (t tool) readPlan(file string) (*target, error) {
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		plan, err := reset.ParsePlanFile(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		return &target{plan: plan, source: file}, nil
	}
	files := t.env.Host.Files
	inProfile := path.Join(settings.SystemProfile, settings.PlanFile)
	next, err := readPlanFile(files, inProfile)
	if err != nil {
		return nil, err
	}
	running, err := readPlanFile(files, settings.PlanFile)
	switch {
	case next == nil && err != nil:
		return nil, err
	case next == nil && running == nil:
		return nil, clikit.WithHint(
			fmt.Errorf("no volume of this machine is reset at boot: there is no %s", settings.PlanFile),
			"settings.disk.immutability.enable turns the reset on; --plan FILE compares by the rules of a file")
	case next == nil:
		if files.Exists(settings.SystemProfile) {
			t.env.UI.Warnf("the default generation resets nothing: shown is what the running system's rules would do")
		}
		return &target{plan: running, source: settings.PlanFile}, nil
	case err != nil:
		t.env.UI.Warnf("the running system's rules cannot be read: %v", err)
	case running != nil:
		if lines := differences(running, next); len(lines) > 0 {
			t.env.UI.Warnf("the default generation, which the next boot starts, has other rules than the running system; they are used here:\n%s",
				strings.Join(lines, "\n"))
		}
	}
	return &target{plan: next, source: inProfile}, nil
}

// readPlanFile reads a plan of this machine; nil where there is none.
func readPlanFile(files run.Files, name string) (*reset.PlanFile, error) {
	f, err := files.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	plan, err := reset.ParsePlanFile(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return plan, nil
}

// differences says in what the next boot's plan differs from the running system's,
// but for its age.
func differences(running, next *reset.PlanFile) []string {
	var lines []string
	differ := func(what, was, is string) {
		if was != is {
			lines = append(lines, fmt.Sprintf("%s is %s, was %s", what, is, was))
		}
	}
	mode := func(p *reset.PlanFile) string {
		if p.Mode == "" {
			return string(reset.ModeReset)
		}
		return string(p.Mode)
	}
	differ("the mode", mode(running), mode(next))
	differ("the device", running.Device, next.Device)
	differ("the snapshots' subvolume", running.Snapshots, next.Snapshots)
	differ("the factory state", running.Clean, next.Clean)
	was := map[string]reset.PlanFileVolume{}
	for _, v := range running.Volumes {
		was[v.Name] = v
	}
	for _, v := range next.Volumes {
		old, known := was[v.Name]
		delete(was, v.Name)
		if !known {
			lines = append(lines, v.Name+" is reset now")
			continue
		}
		differ("the mount point of "+v.Name, old.MountPoint, v.MountPoint)
		lines = append(lines, ruleDifferences(old, v)...)
	}
	for _, v := range running.Volumes {
		if _, gone := was[v.Name]; gone {
			lines = append(lines, v.Name+" is not reset any more")
		}
	}
	return lines
}

func ruleDifferences(running, next reset.PlanFileVolume) []string {
	var lines []string
	for _, list := range []struct {
		was, is   []string
		now, gone string
	}{
		{running.Keep, next.Keep, "keeps", "no longer keeps"},
		{running.Exclude, next.Exclude, "excludes", "no longer excludes"},
	} {
		for _, rule := range without(list.is, list.was) {
			lines = append(lines, fmt.Sprintf("%s %s", list.now, path.Join(next.MountPoint, rule)))
		}
		for _, rule := range without(list.was, list.is) {
			lines = append(lines, fmt.Sprintf("%s %s", list.gone, path.Join(next.MountPoint, rule)))
		}
	}
	return lines
}

// without are the sorted members of a list that are not in another.
func without(list, other []string) []string {
	out := slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(other, s) })
	slices.Sort(out)
	return slices.Compact(out)
}

// findDevice finds where the file system is: where the command line or the plan says,
// or where the volume comes from that is mounted now.
func (t tool) findDevice(r request, tgt *target) error {
	if r.device != "" {
		tgt.device = r.device
		return nil
	}
	mounts, err := t.mounts()
	if err != nil {
		return err
	}
	for _, v := range tgt.plan.Volumes {
		m, mounted := mounts[v.MountPoint]
		if mounted && m.root != "/"+v.Name {
			t.env.UI.Warnf("what is mounted at %s is %s of %s, not %s: shown is %s", v.MountPoint, m.root, m.source, v.Name, v.Name)
		}
	}
	tgt.device = tgt.plan.Device
	if tgt.device != "" {
		if _, err := os.Stat(tgt.device); err == nil {
			return nil
		}
	}
	for _, v := range tgt.plan.Volumes {
		if m, mounted := mounts[v.MountPoint]; mounted {
			t.env.UI.Warnf("the plan's device %q is not there: taken is %s, which is mounted at %s", tgt.device, m.source, v.MountPoint)
			tgt.device = m.source
			return nil
		}
	}
	return clikit.WithHint(fmt.Errorf("the plan's device %q is not there", tgt.device), "name one with --device")
}

// mounted is a btrfs mount.
type mounted struct{ root, source string }

// mounts are the btrfs mounts by mount point, the one on top where there are several.
func (t tool) mounts() (map[string]mounted, error) {
	f, err := t.env.Host.Files.Open("/proc/self/mountinfo")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseMounts(f)
}

// parseMounts reads mountinfo (proc_pid_mountinfo(5)):
//
//	36 35 0:33 /@root / rw,noatime shared:1 - btrfs /dev/mapper/root rw,…
func parseMounts(r io.Reader) (map[string]mounted, error) {
	found := map[string]mounted{}
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		before, after, ok := strings.Cut(scanner.Text(), " - ")
		mount, fs := strings.Fields(before), strings.Fields(after)
		if !ok || len(mount) < 5 || len(fs) < 2 {
			continue
		}
		point := unescape(mount[4])
		delete(found, point)
		if fs[0] == "btrfs" {
			found[point] = mounted{unescape(mount[3]), unescape(fs[1])}
		}
	}
	return found, scanner.Err()
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
