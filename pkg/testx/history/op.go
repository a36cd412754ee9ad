// Package history makes up what happens to a volume between two boots: files
// written, moved, linked, replaced and deleted, with every kind of metadata and
// name that btrfs can hold.
//
// A Generator draws everything from one Source, so a seed and the state of the
// volume decide it all. What it does it returns as a log of Op values, which
// print one to a line and parse back, so that a failing history can be read,
// cut down and replayed. Every step is relative to an open directory and
// follows no symlink: nothing outside the volume is touched.
package history

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A Kind says what an Op does.
type Kind string

// The kinds, and the fields of Op that each uses beside Path.
const (
	Mkdir     Kind = "mkdir"     // Mode
	Deep      Kind = "deep"      // Size: so many directories, each in the one before
	Write     Kind = "write"     // Size, Seed, Mode: the whole content
	Append    Kind = "append"    // Size, Seed
	WriteAt   Kind = "writeat"   // Offset, Size, Seed
	Rewrite   Kind = "rewrite"   // the same content again
	Truncate  Kind = "truncate"  // Size
	Allocate  Kind = "allocate"  // Size: fallocate(2)
	Clone     Kind = "clone"     // To: a new file of the same extents
	Rename    Kind = "rename"    // To
	Exchange  Kind = "exchange"  // To: RENAME_EXCHANGE
	Link      Kind = "link"      // To: the new name
	Symlink   Kind = "symlink"   // To: the target
	Mknod     Kind = "mknod"     // Mode with the type, Rdev
	Unlink    Kind = "unlink"    // one name that is no directory
	RemoveAll Kind = "removeall" // with all below, nested subvolumes and flags too
	Recreate  Kind = "recreate"  // Seed: another file, directory or symlink of the same name, size and time
	Chmod     Kind = "chmod"     // Mode
	Chown     Kind = "chown"     // UID, GID
	SetTime   Kind = "settime"   // Time
	SetXattr  Kind = "setxattr"  // Name, Value
	DelXattr  Kind = "delxattr"  // Name
	SetFlags  Kind = "setflags"  // Flags: all that chattr can set
	Subvolume Kind = "subvolume" // a nested one
	Snapshot  Kind = "snapshot"  // To: a writable one of a nested subvolume
	ReadOnly  Kind = "readonly"  // Flags: 1 or 0, of a nested subvolume
	Sync      Kind = "sync"      // commits the transaction
)

// An Op is one change to a volume. Paths are relative to its root, which is "".
type Op struct {
	Kind     Kind
	Path, To string

	Name, Value string // of an extended attribute
	Mode        uint32 // as st_mode
	UID, GID    uint32
	Offset      int64  // bytes
	Size        int64  // bytes
	Seed        uint64 // of the content
	Flags       uint32 // of FS_IOC_SETFLAGS
	Rdev        uint64
	Time        int64 // nanoseconds since 1970: access and modification
	KeepTime    bool  // the modification time stays as it was
}

// String is one line, without its end: the kind, the quoted path, and each
// further field that is not zero, as key=value.
func (o Op) String() string {
	var b strings.Builder

	fmt.Fprintf(&b, "%s %q", o.Kind, o.Path)

	text := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&b, " %s=%q", key, value)
		}
	}
	number := func(key, format string, value any, zero bool) {
		if !zero {
			fmt.Fprintf(&b, " %s="+format, key, value)
		}
	}

	text("to", o.To)
	text("name", o.Name)
	text("value", o.Value)
	number("mode", "0%o", o.Mode, o.Mode == 0)
	number("uid", "%d", o.UID, o.UID == 0)
	number("gid", "%d", o.GID, o.GID == 0)
	number("offset", "%d", o.Offset, o.Offset == 0)
	number("size", "%d", o.Size, o.Size == 0)
	number("seed", "%d", o.Seed, o.Seed == 0)
	number("flags", "%#x", o.Flags, o.Flags == 0)
	number("rdev", "%d", o.Rdev, o.Rdev == 0)
	number("time", "%d", o.Time, o.Time == 0)
	number("keeptime", "%t", o.KeepTime, !o.KeepTime)

	return b.String()
}

// Format prints a log, one line for each Op.
func Format(ops []Op) string {
	var b strings.Builder

	for _, o := range ops {
		b.WriteString(o.String())
		b.WriteByte('\n')
	}

	return b.String()
}

// Parse reads a log that Format wrote. Empty lines, and lines that begin with a
// number sign, are skipped. Errors name the line.
func Parse(r io.Reader) ([]Op, error) {
	var ops []Op

	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)

	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}

		o, err := parseOp(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}

		ops = append(ops, o)
	}

	return ops, lines.Err()
}

var errSyntax = errors.New(`want KIND "PATH" [KEY=VALUE …]`)

func parseOp(line string) (Op, error) {
	kind, rest, ok := strings.Cut(line, " ")
	if !ok {
		return Op{}, errSyntax
	}

	o := Op{Kind: Kind(kind)}
	if _, ok := appliers[o.Kind]; !ok {
		return Op{}, fmt.Errorf("no kind of operation is called %q", kind)
	}

	var err error
	if o.Path, rest, err = cutQuoted(rest); err != nil {
		return Op{}, err
	}

	for rest = strings.TrimLeft(rest, " "); rest != ""; rest = strings.TrimLeft(rest, " ") {
		var key string

		if key, rest, ok = strings.Cut(rest, "="); !ok {
			return Op{}, errSyntax
		}

		if rest, err = setField(&o, key, rest); err != nil {
			return Op{}, fmt.Errorf("%s: %w", key, err)
		}
	}

	return o, nil
}

// setField takes the value of one field from the beginning of text and returns
// what follows.
func setField(o *Op, key, text string) (rest string, err error) {
	if s := map[string]*string{"to": &o.To, "name": &o.Name, "value": &o.Value}[key]; s != nil {
		*s, rest, err = cutQuoted(text)

		return rest, err
	}

	word, rest, _ := strings.Cut(text, " ")

	if n := map[string]*uint32{"mode": &o.Mode, "uid": &o.UID, "gid": &o.GID, "flags": &o.Flags}[key]; n != nil {
		v, err := strconv.ParseUint(word, 0, 32)
		*n = uint32(v)

		return rest, err
	}

	if n := map[string]*uint64{"seed": &o.Seed, "rdev": &o.Rdev}[key]; n != nil {
		*n, err = strconv.ParseUint(word, 0, 64)

		return rest, err
	}

	if n := map[string]*int64{"offset": &o.Offset, "size": &o.Size, "time": &o.Time}[key]; n != nil {
		*n, err = strconv.ParseInt(word, 0, 64)

		return rest, err
	}

	if key == "keeptime" {
		o.KeepTime, err = strconv.ParseBool(word)

		return rest, err
	}

	return "", errors.New("no such field")
}

func cutQuoted(text string) (value, rest string, err error) {
	quoted, err := strconv.QuotedPrefix(text)
	if err != nil {
		return "", "", errSyntax
	}

	value, err = strconv.Unquote(quoted)

	return value, text[len(quoted):], err
}
