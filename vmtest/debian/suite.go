package debian

import (
	"context"
	"fmt"
	"strings"
)

// Source is the entry of sources.list(5) for a suite, with the mirror that the
// machine itself uses: for programs that bring their own apt, such as
// mmdebstrap.
func Source(suite string) (string, error) {
	m, err := systemMirror()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("deb [signed-by=%s] %s %s main", m.signedBy, m.uri, suite), nil
}

// Versions are the versions that the packages of a set have now, by name,
// without fetching them.
func (c Cache) Versions(ctx context.Context, set Set) (map[string]string, error) {
	unlock, err := c.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	apt, err := c.open(set.Suite, set.Arch)
	if err != nil {
		return nil, err
	}
	archives, err := c.resolve(ctx, apt, set)
	if err != nil {
		return nil, fmt.Errorf("packages %s of %s: %w", strings.Join(set.Packages, " "), set.Suite, err)
	}
	versions := make(map[string]string, len(archives))
	for _, a := range archives {
		versions[a.Name] = a.Version
	}
	return versions, nil
}
