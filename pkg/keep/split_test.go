package keep

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	rootVolume = Volume{Name: "@root", MountPoint: "/", Reset: true}
	homeVolume = Volume{Name: "@home", MountPoint: "/home", Reset: true}
	nixVolume  = Volume{Name: "@nix", MountPoint: "/nix"}
	logVolume  = Volume{Name: "@log", MountPoint: "/var/log"}
	bobVolume  = Volume{Name: "@bob", MountPoint: "/home/bob", Reset: true}
)

func TestSplit(t *testing.T) {
	type rules struct{ Keep, Exclude []string }

	tests := []struct {
		name          string
		volumes       []Volume
		keep, exclude []string
		want          map[string]rules
		withoutEffect []string
	}{
		{
			name:    "longest mount point first",
			volumes: []Volume{rootVolume, homeVolume, nixVolume},
			keep:    []string{"/etc/ssh/", "/home//alice/Downloads", "/etc/ssh", "/homestead"},
			exclude: []string{"/home/alice/Downloads/tmp"},
			want: map[string]rules{
				"@root": {Keep: []string{"/etc/ssh", "/homestead"}},
				"@home": {Keep: []string{"/alice/Downloads"}, Exclude: []string{"/alice/Downloads/tmp"}},
			},
		},
		{
			name:    "the order of the volumes does not matter",
			volumes: []Volume{bobVolume, homeVolume, rootVolume},
			keep:    []string{"/home/bob/a", "/home/alice", "/etc"},
			want: map[string]rules{
				"@bob": {Keep: []string{"/a"}}, "@home": {Keep: []string{"/alice"}}, "@root": {Keep: []string{"/etc"}},
			},
		},
		{
			name:    "a pattern above the way to a mount point goes both ways",
			volumes: []Volume{rootVolume, homeVolume},
			keep:    []string{"/*/alice"},
			want:    map[string]rules{"@root": {Keep: []string{"/*/alice"}}, "@home": {Keep: []string{"/alice"}}},
		},
		{
			name:    "a pattern below a mount point stays there",
			volumes: []Volume{rootVolume, homeVolume},
			keep:    []string{"/home/*/.ssh"},
			want:    map[string]rules{"@root": {}, "@home": {Keep: []string{"/*/.ssh"}}},
		},
		{
			name:    "a pattern goes into the deeper volume too",
			volumes: []Volume{rootVolume, homeVolume, bobVolume},
			keep:    []string{"/home/*/.ssh", "/h*/b*/x*"},
			want: map[string]rules{
				"@root": {Keep: []string{"/h*/b*/x*"}},
				"@home": {Keep: []string{"/*/.ssh", "/b*/x*"}},
				"@bob":  {Keep: []string{"/.ssh", "/x*"}},
			},
		},
		{
			name:    "a pattern that begins before a mount point and names the next",
			volumes: []Volume{rootVolume, homeVolume, {Name: "@srv", MountPoint: "/srv", Reset: true}, bobVolume},
			keep:    []string{"/*/bob/x"},
			want: map[string]rules{
				"@root": {Keep: []string{"/*/bob/x"}}, "@home": {}, "@srv": {Keep: []string{"/bob/x"}}, "@bob": {Keep: []string{"/x"}},
			},
		},
		{
			name:          "volumes never reset",
			volumes:       []Volume{rootVolume, nixVolume, logVolume},
			keep:          []string{"/nix/var", "/nix", "/var/log/journal", "/*/log/x", "/var"},
			exclude:       []string{"/nix/var/x", "/nix"},
			want:          map[string]rules{"@root": {Keep: []string{"/*/log/x", "/var"}}},
			withoutEffect: []string{"/nix", "/nix/var", "/nix/var/x", "/var/log/journal"},
		},
		{
			name:          "no volume at all",
			volumes:       []Volume{homeVolume},
			keep:          []string{"/etc/ssh", "/*/x"},
			want:          map[string]rules{"@home": {Keep: []string{"/x"}}},
			withoutEffect: []string{"/etc/ssh"},
		},
		{
			name:    "an exclude pattern may match a mount point",
			volumes: []Volume{rootVolume, homeVolume, bobVolume},
			keep:    []string{"/etc"},
			exclude: []string{"/home/*"},
			want:    map[string]rules{"@root": {Keep: []string{"/etc"}}, "@home": {Exclude: []string{"/*"}}, "@bob": {}},
		},
		{
			name:          "a mount point is no pattern",
			volumes:       []Volume{rootVolume, {Name: "@star", MountPoint: "/s*r", Reset: true}},
			keep:          []string{"/s*r/x", "/sir/x"},
			want:          map[string]rules{"@root": {Keep: []string{"/s*r/x", "/sir/x"}}, "@star": {Keep: []string{"/x"}}},
			withoutEffect: nil,
		},
		{
			name:          "reserved names where there is no reset",
			volumes:       []Volume{rootVolume, nixVolume},
			keep:          []string{"/nix/.boot-ready"},
			want:          map[string]rules{"@root": {}},
			withoutEffect: []string{"/nix/.boot-ready"},
		},
	}

	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			per, withoutEffect, err := Split(tt.volumes, tt.keep, tt.exclude)
			if err != nil {
				t.Fatalf("Split = %v, want no error", err)
			}

			got := map[string]rules{}

			for _, v := range per {
				got[v.Volume.Name] = rules{Keep: emptyIsNil(v.Keep), Exclude: emptyIsNil(v.Exclude)}

				if _, err := NewSet(v.Keep, v.Exclude); err != nil {
					t.Errorf("NewSet of what Split made = %v, want no error", err)
				}
			}

			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Split, per volume (-want +got):\n%s", diff)
			}

			if diff := cmp.Diff(tt.withoutEffect, emptyIsNil(withoutEffect)); diff != "" {
				t.Errorf("Split, without effect (-want +got):\n%s", diff)
			}
		})
	}
}

func emptyIsNil(texts []string) []string {
	if len(texts) == 0 {
		return nil
	}

	return texts
}

func TestSplitRefuses(t *testing.T) {
	all := []Volume{rootVolume, homeVolume, nixVolume, bobVolume}

	tests := []struct {
		volumes []Volume
		rule    string
		keep    error
		exclude error
	}{
		{all, "/", ErrMountPoint, ErrMountPoint},
		{all, "/home/", ErrMountPoint, ErrMountPoint},
		{all, "/home/bob", ErrMountPoint, ErrMountPoint},
		{[]Volume{rootVolume, bobVolume}, "/home", ErrAboveVolume, ErrAboveVolume},
		{all, "/*", ErrMountPoint, nil},
		{all, "/*/bo*", ErrMountPoint, nil},
		{[]Volume{rootVolume, bobVolume}, "/ho*", ErrAboveVolume, nil},
		{all, "/home/.boot-ready", ErrReservedName, ErrReservedName},
		{all, "/.immutability-trash/x", ErrReservedName, ErrReservedName},
		{all, "/*/.boot-ready", ErrReservedName, ErrReservedName},
		{all, "/home/..", ErrDots, ErrDots},
		{all, "", ErrEmpty, ErrEmpty},
	}

	for _, tt := range tests {
		if _, _, err := Split(tt.volumes, []string{tt.rule}, nil); !errors.Is(err, tt.keep) || !strings.Contains(err.Error(), tt.rule) {
			t.Errorf("Split(keep %q) = %v, want %v", tt.rule, err, tt.keep)
		}

		if _, _, err := Split(tt.volumes, nil, []string{tt.rule}); !errors.Is(err, tt.exclude) {
			t.Errorf("Split(exclude %q) = %v, want %v", tt.rule, err, tt.exclude)
		}
	}
}

func TestSplitRefusesVolumes(t *testing.T) {
	for _, volumes := range [][]Volume{
		{rootVolume, {Name: "@x", MountPoint: "//", Reset: true}},
		{{Name: "@x", MountPoint: ""}},
		{{Name: "@x", MountPoint: "home"}},
		{{Name: "@x", MountPoint: "/home/.."}},
	} {
		if _, _, err := Split(volumes, nil, nil); err == nil || !strings.Contains(err.Error(), "@x") {
			t.Errorf("Split(%v) = %v, want an error that names @x", volumes, err)
		}
	}
}
