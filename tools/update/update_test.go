package update

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"nixos-go/pkg/reset"
	"nixos-go/pkg/run"
	"nixos-go/pkg/testx/tooltest"
	"nixos-go/pkg/ui"
)

func TestMain(m *testing.M) {
	tooltest.Main(m, tooltest.Tools{"nixos-update": newApp},
		"nix", "nixos-rebuild", "nix-collect-garbage", "journalctl", "systemctl")
}

func TestScripts(t *testing.T) { tooltest.Scripts(t, "testdata") }

func planFile(volumes ...reset.PlanFileVolume) *reset.PlanFile {
	return &reset.PlanFile{Version: 1, Volumes: volumes}
}

func volume(mountPoint string, keeps, excludes []string) reset.PlanFileVolume {
	return reset.PlanFileVolume{Name: "@x", MountPoint: mountPoint, Keep: keeps, Exclude: excludes}
}

// TestEphemeral compares rule sets on files that are there:
//
//	/etc/machine-id /etc/ssh/key /etc/empty/ /srv/data
//	/home/ann/Downloads/a /home/ann/Music/b /home/bob/Music/c /home/ann/.config/app/{Cache/x,state}
//	/home/ann/link -> /etc
func TestEphemeral(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{
		"etc/machine-id", "etc/ssh/key", "srv/data", "home/ann/Downloads/a", "home/ann/Music/b",
		"home/bob/Music/c", "home/ann/.config/app/Cache/x", "home/ann/.config/app/state",
	} {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Join(root, "etc/empty"), 0o755), os.Symlink("/etc", filepath.Join(root, "home/ann/link"))); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name          string
		before, after *reset.PlanFile
		more          []*reset.PlanFile
		want          []string
	}{
		{
			name:   "the same",
			before: planFile(volume("/", []string{"/etc"}, nil)), after: planFile(volume("/", []string{"/etc"}, nil)),
		},
		{
			name:   "more is kept",
			before: planFile(volume("/", []string{"/etc/ssh"}, nil)), after: planFile(volume("/", []string{"/etc"}, nil)),
		},
		{
			name:   "a rule is gone; empty folders are no data",
			before: planFile(volume("/", []string{"/etc/ssh", "/etc/machine-id", "/etc/empty", "/missing"}, nil)),
			after:  planFile(volume("/", []string{"/etc/machine-id"}, nil)),
			want:   []string{"/etc/ssh"},
		},
		{
			name:   "a folder is narrowed to parts of it",
			before: planFile(volume("/", []string{"/etc"}, nil)),
			after:  planFile(volume("/", []string{"/etc/machine-id", "/etc/ssh/other"}, nil)),
			want:   []string{"/etc/ssh/key"},
		},
		{
			name:   "patterns on another volume",
			before: planFile(volume("/home", []string{"/*/Downloads", "/*/Music"}, nil)),
			after:  planFile(volume("/home", []string{"/*/Downloads", "/ann/Music"}, nil)),
			want:   []string{"/home/bob/Music"},
		},
		{
			name:   "a new exclude below a kept path",
			before: planFile(volume("/home", []string{"/*/.config/app"}, nil)),
			after:  planFile(volume("/home", []string{"/*/.config/app"}, []string{"/*/.config/app/Cache"})),
			want:   []string{"/home/ann/.config/app/Cache"},
		},
		{
			name:   "an exclude that was there before",
			before: planFile(volume("/home", []string{"/*/.config/app"}, []string{"/*/.config/app/Cache"})),
			after:  planFile(volume("/home", []string{"/*/.config/app"}, []string{"/*/.config/app/Cache"})),
		},
		{
			name:   "symlinks are not followed",
			before: planFile(volume("/home", []string{"/ann/link/ssh", "/ann/link"}, nil)),
			after:  planFile(volume("/home", []string{"/ann/link/ssh"}, nil)),
			want:   []string{"/home/ann/link"},
		},
		{
			name:   "any of several plans kept it",
			before: planFile(volume("/", []string{"/srv"}, nil)),
			more:   []*reset.PlanFile{planFile(volume("/", []string{"/etc/ssh"}, nil))},
			after:  planFile(volume("/", []string{"/etc/machine-id"}, nil)),
			want:   []string{"/etc/ssh", "/srv"},
		},
		{
			name:   "a volume that is no longer reset",
			before: planFile(volume("/", []string{"/etc"}, nil)),
			after:  planFile(),
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, unreadable, err := ephemeral(t.Context(), run.Below(root), append(test.more, test.before), test.after)
			if err != nil || unreadable != 0 {
				t.Fatalf("ephemeral() = %v, %d unreadable", err, unreadable)
			}
			paths := make([]string, 0, len(got))
			for _, l := range got {
				paths = append(paths, l.Path.Path)
			}
			if diff := cmp.Diff(test.want, paths, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("ephemeral() (-want +got):\n%s", diff)
			}
		})
	}
	whole := planFile(volume("/home", []string{"/*/Music"}, nil))
	got, _, err := ephemeral(t.Context(), run.Below(root), nil, whole)
	if want := []losing{{ui.JSONPath("/home"), true}}; err != nil || !cmp.Equal(want, got) {
		t.Errorf("a volume that was never reset: %+v, %v, want the whole of it", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := ephemeral(ctx, run.Below(root), []*reset.PlanFile{whole}, whole); !errors.Is(err, context.Canceled) {
		t.Errorf("ephemeral(ended context) = %v", err)
	}
}
