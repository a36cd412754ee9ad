package main

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/ui"
	"nixos-go/vmtest/machine"
)

// state is a line of status.
type state struct {
	Name    string         `json:"name"`
	Running bool           `json:"running"`
	Status  string         `json:"status"` // QEMU's word for it, or "off"
	Arch    string         `json:"arch"`
	Accel   string         `json:"accel"`
	Ports   map[string]int `json:"ports,omitempty"` // the guest's to the host's
	Dir     string         `json:"dir"`
	Repeat  string         `json:"repeat"`
	Bytes   int64          `json:"bytes"`
}

func (t *tool) statusCommand() *cli.Command {
	return &cli.Command{
		Name:   "status",
		Usage:  "list machines and what they do",
		Flags:  []cli.Flag{clikit.JSONFlag()},
		Action: t.action(clikit.NoArgs, t.status),
	}
}

func (t *tool) status(c *cli.Context, p place) error {
	all, err := states(c, p)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return t.env.UI.JSON(all)
	}
	if len(all) == 0 {
		t.env.UI.Infof("there are no machines: %s up makes one", name)
		return nil
	}
	table := &ui.Table{Head: []string{"machine", "status", "arch", "by", "ports", ">size", "folder"}}
	for _, one := range all {
		var ports []string
		for guest, host := range one.Ports {
			ports = append(ports, guest+" at "+strconv.Itoa(host))
		}
		table.Row(one.Name, one.Status, one.Arch, one.Accel, strings.Join(ports, ", "), ui.Size(one.Bytes), one.Dir)
	}
	return t.env.UI.Table(table)
}

func states(c *cli.Context, p place) ([]state, error) {
	names, err := p.names()
	if err != nil {
		return nil, err
	}
	all := []state{}
	for _, called := range names {
		m, err := machine.Load(p.machine(called))
		if errors.Is(err, fs.ErrNotExist) {
			continue // was cut off while it was made
		}
		if err != nil {
			return nil, err
		}
		one := state{
			Name: called, Status: "off", Arch: string(m.Spec.Arch), Accel: string(m.Spec.Accel),
			Dir: m.Dir, Repeat: m.Repeat(),
		}
		if err := m.Attach(c.Context); err == nil {
			err := live(c, m, &one)
			m.Detach()
			if err != nil {
				return nil, err
			}
		} else if !errors.Is(err, machine.ErrStopped) {
			return nil, err
		}
		if one.Bytes, err = occupied(m.Dir); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// live asks a running machine.
func live(c *cli.Context, m *machine.Machine, one *state) error {
	var answer struct {
		Status string `json:"status"`
	}
	if err := m.QMP().Do(c.Context, "query-status", nil, &answer); err != nil {
		return err
	}
	one.Running, one.Status = true, answer.Status
	if n := m.Spec.Network; n != nil {
		one.Ports = map[string]int{}
		for _, port := range n.Forward {
			one.Ports[strconv.Itoa(port)] = m.Port(port)
		}
	}
	return nil
}

// occupied is what the files of a folder take on the disk, in bytes: they are
// sparse.
func occupied(dir string) (int64, error) {
	total := int64(0)
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a socket that goes
		}
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode().IsRegular() {
			total += stat.Blocks * 512 // stat(2): whatever the file system's block size is
		}
		return nil
	})
	return total, err
}
