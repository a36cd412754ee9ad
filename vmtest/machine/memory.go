package machine

import (
	"context"
	"errors"
	"fmt"

	"nixos-go/vmtest/qmp"
)

// writable are the block nodes that a snapshot covers.
func (m *Machine) writable() []string {
	nodes := []string{stateNode}
	if m.Spec.Firmware != nil {
		nodes = append(nodes, varsNode)
	}
	for _, d := range m.Spec.Disks {
		if !d.ReadOnly {
			nodes = append(nodes, diskNode(d.ID))
		}
	}
	return nodes
}

// snapshotJob runs one of QEMU's snapshot jobs to its end.
func (m *Machine) snapshotJob(ctx context.Context, command, tag string) error {
	const id = "snapshot"
	arguments := map[string]any{"job-id": id, "tag": tag, "devices": m.writable()}
	if command != "snapshot-delete" {
		arguments["vmstate"] = stateNode
	}
	events := len(m.QMP().Events())
	if err := m.QMP().Do(ctx, command, arguments, nil); err != nil {
		return err
	}
	for {
		var jobs []struct {
			ID     string `json:"id"`
			Status string `json:"status"`
			Error  string `json:"error"`
		}
		if err := m.QMP().Do(ctx, "query-jobs", nil, &jobs); err != nil {
			return err
		}
		for _, job := range jobs {
			if job.ID != id || job.Status != "concluded" {
				continue
			}
			err := m.QMP().Do(ctx, "job-dismiss", map[string]any{"id": id}, nil)
			if job.Error != "" {
				err = errors.Join(&qmp.Error{Command: command, Description: job.Error}, err)
			}
			return err
		}
		if _, err := m.QMP().Wait(ctx, events, "JOB_STATUS_CHANGE"); err != nil {
			return err
		}
		events = len(m.QMP().Events())
	}
}

// SaveSnapshot saves disks, firmware variables, memory and processors of the
// running machine under a name inside its own images; it goes on after that.
// Such a name lasts as long as the folder; [Machine.Checkpoint] lasts longer.
func (m *Machine) SaveSnapshot(ctx context.Context, name string) error {
	return m.Within(ctx, func(ctx context.Context) error { return m.snapshotJob(ctx, "snapshot-save", name) })
}

// LoadSnapshot takes the running machine back to a snapshot.
func (m *Machine) LoadSnapshot(ctx context.Context, name string) error {
	return m.Within(ctx, func(ctx context.Context) error {
		return errors.Join(m.snapshotJob(ctx, "snapshot-load", name), m.QMP().Do(ctx, "cont", nil, nil))
	})
}

// DeleteSnapshot forgets a snapshot.
func (m *Machine) DeleteSnapshot(ctx context.Context, name string) error {
	return m.Within(ctx, func(ctx context.Context) error { return m.snapshotJob(ctx, "snapshot-delete", name) })
}

// loadMemory lets a machine that was started paused go on from the snapshot in
// its images.
func (m *Machine) loadMemory(ctx context.Context, paused bool) error {
	name, version := m.load, m.loadFrom
	m.load, m.loadFrom = "", ""
	if have := m.QMP().Version.String(); have != version {
		return fmt.Errorf("the memory is of QEMU %s, this is %s: make the checkpoint anew", version, have)
	}
	if err := m.snapshotJob(ctx, "snapshot-load", name); err != nil {
		return fmt.Errorf("going on from memory (is it another machine than then?): %w", err)
	}
	// Its name is free again: for the next checkpoint.
	if err := m.snapshotJob(ctx, "snapshot-delete", name); err != nil {
		return err
	}
	if paused {
		return nil
	}
	return m.QMP().Do(ctx, "cont", nil, nil)
}
