package nix_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What a machine keeps for itself, config.json and the secrets, no Nix file reads: a
// flake sees only what git knows, and what Nix reads ends up in the world-readable store.
func TestLocalStateIsNotRead(t *testing.T) {
	// A path, "./secrets" or /var/lib/…, and not a string.
	secretPath := regexp.MustCompile(`[^"\w](\.{0,2}/[\w./-]*secrets[\w./-]*)`)
	files := 0
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && entry.Name() != ".." {
			return fs.SkipDir
		}
		if filepath.Ext(path) != ".nix" {
			return nil
		}
		files++
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		number := 0
		for line := range strings.Lines(string(text)) {
			number++
			code, _, _ := strings.Cut(line, "# ")
			if strings.Contains(code, "config.json") {
				t.Errorf("%s:%d reads config.json: %s", path, number, line)
			}
			if at := secretPath.FindStringSubmatch(" " + code); at != nil && !strings.Contains(code, `"`) && !strings.Contains(code, "`") {
				t.Errorf("%s:%d has the path %s, which Nix would copy into its store", path, number, at[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 20 {
		t.Errorf("looked at %d Nix files, want those of the project", files)
	}
}
