package debian

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nixos-go/pkg/run"
)

// aptState is apt's state for one suite and architecture.
type aptState struct {
	dir, arch string
}

// stampFile is as old as the lists.
const stampFile = "updated"

// open prepares the state. It is called under the lock.
func (c Cache) open(suite, arch string) (*aptState, error) {
	mirror := c.mirror
	if mirror == nil {
		m, err := systemMirror()
		if err != nil {
			return nil, err
		}
		mirror = &m
	}
	a := &aptState{dir: filepath.Join(c.Dir, "apt", suite+"-"+arch), arch: arch}
	for _, dir := range []string{"lists/partial", "cache/archives/partial", "etc"} {
		if err := os.MkdirAll(filepath.Join(a.dir, dir), 0o755); err != nil {
			return nil, err
		}
	}
	line := fmt.Sprintf("deb [arch=%s signed-by=%s] %s %s main\n", arch, mirror.signedBy, mirror.uri, suite)
	return a, errors.Join(
		os.WriteFile(filepath.Join(a.dir, "status"), nil, 0o600),
		os.WriteFile(filepath.Join(a.dir, "sources.list"), []byte(line), 0o600))
}

// command is a command of apt that works with this state alone.
func (a *aptState) command(program string, args ...string) run.Command {
	var options []string
	for _, o := range []string{
		"Dir::Etc::sourcelist=" + filepath.Join(a.dir, "sources.list"),
		"Dir::Etc::sourceparts=/dev/null",
		"Dir::Etc::preferencesparts=/dev/null",
		"Dir::State::Lists=" + filepath.Join(a.dir, "lists"),
		"Dir::State::status=" + filepath.Join(a.dir, "status"),
		"Dir::Cache=" + filepath.Join(a.dir, "cache"),
		"APT::Architecture=" + a.arch,
		"APT::Architectures=" + a.arch,
		"APT::Install-Recommends=false",
		"APT::Sandbox::User=root", // the cache may be where the user _apt cannot go
		"Acquire::Languages=none",
		"Acquire::Retries=3",
	} {
		options = append(options, "-o", o)
	}
	command := run.New(program, append(options, args...)...)
	command.Env = []string{"LC_ALL=C"}
	return command
}

func (a *aptState) stamp() string { return filepath.Join(a.dir, stampFile) }

func (a *aptState) hasLists() bool {
	_, err := os.Stat(a.stamp())
	return err == nil
}

// update renews the lists where they are old. An error means that they are not
// there or are old.
func (a *aptState) update(ctx context.Context, runner run.Runner) error {
	if info, err := os.Stat(a.stamp()); err == nil && time.Since(info.ModTime()) < listsAge {
		return nil
	}
	if _, err := runner.Run(ctx, a.command("apt-get", "update", "-qq", "--error-on=any")); err != nil {
		return err
	}
	return os.WriteFile(a.stamp(), nil, 0o600)
}

// isFresh tells whether a file is no older than the lists.
func (a *aptState) isFresh(path string) bool {
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	lists, err := os.Stat(a.stamp())
	return err == nil && !info.ModTime().Before(lists.ModTime())
}

// remembered is an earlier answer that is no older than the lists.
func (a *aptState) remembered(path string) []archive {
	if !a.isFresh(path) {
		return nil
	}
	var archives []archive
	b, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(b, &archives) != nil {
		return nil
	}
	return archives
}

// parseURIs reads what apt prints with --print-uris: 'URI' FILE SIZE HASH, with
// FILE as NAME_VERSION_ARCH.deb, in which a colon of the version is %3a.
func parseURIs(r io.Reader) ([]archive, error) {
	var archives []archive
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 2 || !strings.HasPrefix(words[0], "'") {
			continue
		}
		file := words[1]
		parts := strings.Split(strings.TrimSuffix(file, ".deb"), "_")
		if len(parts) != 3 {
			return nil, fmt.Errorf("apt names an archive %q", file)
		}
		version, err := url.PathUnescape(parts[1])
		if err != nil {
			return nil, fmt.Errorf("apt names an archive %q: %w", file, err)
		}
		archives = append(archives, archive{URI: strings.Trim(words[0], "'"), File: file, Name: parts[0], Version: version})
	}
	return archives, lines.Err()
}
