package install

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"nixos-go/pkg/run"
	"nixos-go/pkg/ui"
)

// blockDevice is a device as lsblk(8) shows it, with what lies on it.
type blockDevice struct {
	Path        string        `json:"path"`
	Type        string        `json:"type"`
	Size        int64         `json:"size"`
	Model       string        `json:"model"`
	Serial      string        `json:"serial"`
	Transport   string        `json:"tran"`
	ReadOnly    bool          `json:"ro"`
	Removable   bool          `json:"rm"`
	FileSystem  string        `json:"fstype"`
	Label       string        `json:"label"`
	PartLabel   string        `json:"partlabel"`
	MountPoints []string      `json:"mountpoints"`
	Children    []blockDevice `json:"children,omitempty"`
}

func lsblk() run.Command {
	return run.New("lsblk", "--json", "--bytes", "--output",
		"PATH,TYPE,SIZE,MODEL,SERIAL,TRAN,RO,RM,FSTYPE,LABEL,PARTLABEL,MOUNTPOINTS")
}

// readDisks lists the whole disks of the machine.
func readDisks(ctx context.Context, r run.Runner) ([]blockDevice, error) {
	result, err := r.Run(ctx, lsblk())
	if err != nil {
		return nil, err
	}
	devices, err := parseDisks(bytes.NewReader(result.Stdout))
	if err != nil {
		return nil, err
	}
	disks := []blockDevice{}
	for _, device := range devices {
		if device.Type == "disk" && device.Size > 0 && !strings.HasPrefix(device.Path, "/dev/zram") {
			disks = append(disks, device)
		}
	}
	return disks, nil
}

// parseDisks reads lsblk --json.
func parseDisks(r io.Reader) ([]blockDevice, error) {
	var list struct {
		BlockDevices []blockDevice `json:"blockdevices"`
	}
	if err := json.NewDecoder(r).Decode(&list); err != nil {
		return nil, fmt.Errorf("lsblk: %w", err)
	}
	for i := range list.BlockDevices {
		list.BlockDevices[i].tidy()
	}
	return list.BlockDevices, nil
}

// tidy takes away the empty mount points that lsblk lists, and blanks around
// names.
func (b *blockDevice) tidy() {
	mounted := []string{}
	for _, point := range b.MountPoints {
		if point != "" {
			mounted = append(mounted, point)
		}
	}
	b.MountPoints = mounted
	b.Model, b.Serial = strings.TrimSpace(b.Model), strings.TrimSpace(b.Serial)
	for i := range b.Children {
		b.Children[i].tidy()
	}
}

// mounted are the mount points of a device and of everything on it; a swap in
// use is "[SWAP]".
func (b *blockDevice) mounted() []string {
	points := append([]string(nil), b.MountPoints...)
	for i := range b.Children {
		points = append(points, b.Children[i].mounted()...)
	}
	return points
}

// showDisks shows each disk with what is on it.
func showDisks(u *ui.UI, disks []blockDevice) error {
	table := ui.Table{Head: []string{"DISK", ">SIZE", "MODEL", "HOLDS"}}
	for i := range disks {
		d := &disks[i]
		table.Row(d.Path, ui.Size(d.Size), d.title(), d.content())
		d.rows(&table, "  ")
	}
	return u.Table(&table)
}

func (b *blockDevice) rows(table *ui.Table, indent string) {
	for i := range b.Children {
		child := &b.Children[i]
		table.Row(indent+child.Path, ui.Size(child.Size), ui.Printable(child.PartLabel), child.content())
		child.rows(table, indent+"  ")
	}
}

// title is how a person knows the disk.
func (b *blockDevice) title() string {
	parts := []string{}
	if b.Model != "" {
		parts = append(parts, ui.Printable(b.Model))
	}
	if b.Transport != "" {
		parts = append(parts, "("+b.Transport+")")
	}
	if b.Serial != "" {
		parts = append(parts, ui.Printable(b.Serial))
	}
	return strings.Join(parts, " ")
}

// content is what lies on a device: its file system, label and mount points.
func (b *blockDevice) content() string {
	parts := []string{}
	if b.FileSystem != "" {
		parts = append(parts, b.FileSystem)
	}
	if b.Label != "" {
		parts = append(parts, ui.Printable(b.Label))
	}
	if len(b.MountPoints) > 0 {
		parts = append(parts, "on "+ui.Printable(strings.Join(b.MountPoints, ", ")))
	}
	if len(parts) == 0 && len(b.Children) == 0 {
		return "nothing known"
	}
	return strings.Join(parts, " ")
}
