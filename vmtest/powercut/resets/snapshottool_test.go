package resets

import (
	"crypto/sha256"
	"maps"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/reset"
	"nixos-go/pkg/testx/model"
)

// TestFetchCheckerCanFail shows the checker of single restores states that no restore
// may leave.
func TestFetchCheckerCanFail(t *testing.T) {
	file := func(content string) model.Entry {
		return model.Entry{Type: unix.S_IFREG, Mode: 0o644, Hash: sha256.Sum256([]byte(content))}
	}
	old := model.Tree{"": {Type: unix.S_IFDIR}, "a": file("new"), "b": file("new"), "stays": file("x")}
	fresh := model.Tree{"": {Type: unix.S_IFDIR}, "a": file("old"), "b": file("old"), "stays": file("x"), "back": file("old")}
	v := reset.PlanFileVolume{Name: rootVolume}
	c := &fetchChecker{done: state{rootVolume: {live: {tree: fresh}}}}
	for _, tt := range []struct {
		name   string
		change func(model.Tree)
		want   string // in the error; "" is none
	}{
		{"nothing done", func(model.Tree) {}, ""},
		{"one of two", func(m model.Tree) { m["a"] = fresh["a"] }, ""},
		{"all", func(m model.Tree) { maps.Copy(m, fresh) }, ""},
		{"half a file", func(m model.Tree) { m["a"] = file("half") }, `"a"`},
		{"half of what was not there", func(m model.Tree) { m["back"] = file("half") }, `"back"`},
		{"one gone", func(m model.Tree) { delete(m, "a") }, `"a"`},
		{"another one gone", func(m model.Tree) { delete(m, "stays") }, `"stays"`},
		{"another one changed", func(m model.Tree) { m["stays"] = file("y") }, `"stays"`},
		{"a stranger", func(m model.Tree) { m["stranger"] = file("z") }, `"stranger"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := maps.Clone(old)
			tt.change(got)
			err := c.eachPathWhole(v, volumeState{live: {tree: old}}, volumeState{live: {tree: got}})
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("eachPathWhole() = %v, want an error with %q", err, tt.want)
			}
		})
	}
	snapshots := volumeState{live: {tree: old}, reset.NamePrevious: {tree: fresh}}
	if err := c.eachPathWhole(v, snapshots, volumeState{live: {tree: old}}); err == nil {
		t.Error("a snapshot is gone, and the checker says nothing")
	}
}
