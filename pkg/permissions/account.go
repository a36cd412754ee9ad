package permissions

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"nixos-go/pkg/run"
)

// Account is a user of a machine.
type Account struct {
	Name     string
	UID, GID int
	Home     string
}

// ErrNoAccount is a user that a machine does not have.
var ErrNoAccount = errors.New("no such user")

// FindAccount looks a user up in the machine's /etc/passwd.
func FindAccount(files run.Files, name string) (Account, error) {
	f, err := files.Open("/etc/passwd")
	if err != nil {
		return Account{}, err
	}
	defer f.Close()
	account, err := findAccount(f, name)
	if err != nil {
		return Account{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return account, nil
}

// findAccount reads passwd(5): seven fields separated by colons.
func findAccount(r io.Reader, name string) (Account, error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if fields[0] != name || name == "" {
			continue
		}
		if len(fields) != 7 {
			return Account{}, fmt.Errorf("the line of %q has %d fields instead of 7", name, len(fields))
		}
		uid, err := strconv.ParseUint(fields[2], 10, 31)
		if err != nil {
			return Account{}, fmt.Errorf("the user number of %q: %w", name, err)
		}
		gid, err := strconv.ParseUint(fields[3], 10, 31)
		if err != nil {
			return Account{}, fmt.Errorf("the group number of %q: %w", name, err)
		}
		return Account{Name: name, UID: int(uid), GID: int(gid), Home: fields[5]}, nil
	}
	if err := lines.Err(); err != nil {
		return Account{}, err
	}
	return Account{}, fmt.Errorf("%w: %q", ErrNoAccount, name)
}
