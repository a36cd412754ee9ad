package reset

import (
	"encoding/base64"
	"encoding/json"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// changeJSON is the JSON of a Change. A path that is not UTF-8 is in pathBase64.
type changeJSON struct {
	Volume     string   `json:"volume,omitempty"`
	Path       string   `json:"path,omitempty"`
	PathBase64 string   `json:"pathBase64,omitempty"`
	Kind       Kind     `json:"kind"`
	Type       string   `json:"type"`
	Fields     []string `json:"fields,omitempty"`
	Size       uint64   `json:"size"`
}

// MarshalJSON encodes the change.
func (c *Change) MarshalJSON() ([]byte, error) { return c.encode("") }

func (c *Change) encode(volume string) ([]byte, error) {
	j := changeJSON{Volume: volume, Kind: c.Kind, Type: TypeName(c.Mode), Fields: c.Fields.Names(), Size: c.Size}
	if utf8.ValidString(c.Path) {
		j.Path = c.Path
	} else {
		j.PathBase64 = base64.StdEncoding.EncodeToString([]byte(c.Path))
	}
	return json.Marshal(j)
}

// TypeName names the type of a file by its st_mode.
func TypeName(mode uint32) string {
	switch mode & modeType {
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFREG:
		return "file"
	case unix.S_IFLNK:
		return "symlink"
	case unix.S_IFCHR:
		return "character device"
	case unix.S_IFBLK:
		return "block device"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	}
	return "unknown"
}

// WipedLine is the line of wiped.jsonl for a change of a volume: what a reset wiped
// or changed back, so that it can be named and fetched back. It is nil for a change
// by which nothing is lost.
func WipedLine(volume string, c *Change) ([]byte, error) {
	if c.Kind == KindDeleted || c.OnlyTime() {
		return nil, nil
	}
	line, err := c.encode(volume)
	return append(line, '\n'), err
}
