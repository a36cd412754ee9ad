package keep

import (
	"fmt"
	"slices"
)

// A Volume is a subvolume with a mount point of its own.
type Volume struct {
	Name       string
	MountPoint string // absolute; every byte stands for itself, `*` too
	Reset      bool   // reset at each boot; the rules of other volumes have no effect
}

// VolumeRules are the rules of one volume that is reset, relative to its
// mount point, normalised, sorted by bytes, each once.
type VolumeRules struct {
	Volume        Volume
	Keep, Exclude []string
}

// Split shares out rules, written as absolute paths of the mounted system,
// among the volumes that are reset, in the order in which these are given. A
// volume that no rule reaches has empty lists.
//
// A rule goes to every volume that holds a path it matches. Without `*` that
// is one: the volume with the longest mount point above the path. With `*`
// there can be several: `/*/alice` goes to the volume at /home as /alice, and
// to the one at / as it is. `/home/*/Downloads` goes to the one at /home
// alone, since all it can match lies there.
//
// A rule that matches the mount point of a volume that is reset, or a
// directory above it, is an error: its owner means the volume too, and that
// keeps what its own rules say and nothing more. This holds for a keep rule
// with `*` as well (`/home/*` where /home/alice is a volume of its own): let
// through, it would seem to keep what the next boot wipes. An exclude rule
// with `*` that could match a mount point only says less than it seems to,
// which loses nothing; it goes to the other volumes it reaches.
//
// A rule that reaches no volume that is reset is returned in withoutEffect,
// normalised, sorted, each once. Errors are a *RuleError that names the rule,
// or name the volume.
func Split(volumes []Volume, keep, exclude []string) (perVolume []VolumeRules, withoutEffect []string, err error) {
	sp, err := newSplitter(volumes)
	if err != nil {
		return nil, nil, err
	}

	for _, text := range keep {
		if err := sp.share(text, Keeps); err != nil {
			return nil, nil, err
		}
	}

	for _, text := range exclude {
		if err := sp.share(text, Excludes); err != nil {
			return nil, nil, err
		}
	}

	for _, m := range sp.mounts {
		if m.volume.Reset {
			perVolume = append(perVolume, VolumeRules{
				Volume:  m.volume,
				Keep:    canonical(m.rules.Keep),
				Exclude: canonical(m.rules.Exclude),
			})
		}
	}

	return perVolume, sortedUnique(sp.withoutEffect), nil
}

type mount struct {
	volume     Volume
	components []string
	rules      Set
}

type splitter struct {
	mounts        []*mount
	withoutEffect []string
}

func newSplitter(volumes []Volume) (*splitter, error) {
	sp := &splitter{}

	for _, v := range volumes {
		components, err := splitPath(v.MountPoint)
		if err != nil {
			return nil, fmt.Errorf("mount point %q of volume %q: %w", v.MountPoint, v.Name, err)
		}

		for _, m := range sp.mounts {
			if slices.Equal(m.components, components) {
				return nil, fmt.Errorf("volumes %q and %q have the same mount point %q", m.volume.Name, v.Name, v.MountPoint)
			}
		}

		sp.mounts = append(sp.mounts, &mount{volume: v, components: components})
	}

	return sp, nil
}

// share gives one rule to each volume that it belongs to.
func (sp *splitter) share(text string, which Which) error {
	rule, err := ParseRule(text)
	if err != nil {
		return err
	}

	if which == Keeps || !slices.ContainsFunc(rule.components, isGlob) {
		if err := sp.checkCovers(text, rule); err != nil {
			return err
		}
	}

	effect := false

	for _, m := range sp.mounts {
		if !m.volume.Reset || !sp.reaches(rule, m) {
			continue
		}

		relative := Rule{components: rule.components[len(m.components):]}
		if err := relative.checkReserved(); err != nil {
			return &RuleError{Rule: text, Volume: m.volume.MountPoint, Err: err}
		}

		if which == Keeps {
			m.rules.Keep = append(m.rules.Keep, relative)
		} else {
			m.rules.Exclude = append(m.rules.Exclude, relative)
		}

		effect = true
	}

	if !effect {
		sp.withoutEffect = append(sp.withoutEffect, rule.String())
	}

	return nil
}

// checkCovers refuses a rule that matches the mount point of a volume that is
// reset, or a directory above one.
func (sp *splitter) checkCovers(text string, rule Rule) error {
	for _, m := range sp.mounts {
		if !m.volume.Reset || len(rule.components) > len(m.components) || !matchPrefix(rule.components, m.components) {
			continue
		}

		err := ErrAboveVolume
		if len(rule.components) == len(m.components) {
			err = ErrMountPoint
		}

		return &RuleError{Rule: text, Volume: m.volume.MountPoint, Err: err}
	}

	return nil
}

// reaches tells whether some path below m's mount point matches the rule and
// is not below the mount point of a deeper volume. A `*` matches more names
// than there are volumes, so only a rule that spells out the way to the deeper
// mount point lies in that volume whole.
func (sp *splitter) reaches(rule Rule, m *mount) bool {
	depth := len(m.components)
	if len(rule.components) <= depth || !matchPrefix(rule.components[:depth], m.components) {
		return false
	}

	return !slices.ContainsFunc(sp.mounts, func(deeper *mount) bool {
		end := len(deeper.components)

		return end > depth && len(rule.components) >= end &&
			slices.Equal(deeper.components[:depth], m.components) &&
			slices.Equal(rule.components[depth:end], deeper.components[depth:]) &&
			!slices.ContainsFunc(rule.components[depth:end], isGlob)
	})
}

// matchPrefix tells whether each component of a rule matches the name at the
// same place of a path that is at least as long.
func matchPrefix(components, names []string) bool {
	for i, c := range components {
		if !matchComponent(c, names[i]) {
			return false
		}
	}

	return true
}
