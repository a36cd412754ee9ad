package ui

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Printable is a name as it can be shown: unchanged where every character is
// printable, else quoted as a Go string, so that control characters and bytes
// that are not UTF-8 show as escapes.
func Printable(name string) string {
	for _, r := range name {
		if r == utf8.RuneError || (!unicode.IsPrint(r) && r != ' ') {
			return strconv.Quote(name)
		}
	}
	return name
}

// Path is a path in JSON: under "path", or in base64 under "pathBase64" where
// it is not UTF-8. Embed it in the struct of a result.
type Path struct {
	Path       string `json:"path,omitempty"`
	PathBase64 string `json:"pathBase64,omitempty"`
}

// JSONPath is name for a JSON result.
func JSONPath(name string) Path {
	if utf8.ValidString(name) {
		return Path{Path: name}
	}
	return Path{PathBase64: base64.StdEncoding.EncodeToString([]byte(name))}
}

// Bytes is the path's own bytes again.
func (p Path) Bytes() (string, error) {
	if p.PathBase64 == "" {
		return p.Path, nil
	}
	b, err := base64.StdEncoding.DecodeString(p.PathBase64)
	if err != nil {
		return "", fmt.Errorf("pathBase64 %q: %w", p.PathBase64, err)
	}
	return string(b), nil
}

// Size is a number of bytes for people, in binary units: "0 B", "1.5 KiB".
func Size(bytes int64) string {
	const units = "KMGTPE"
	if bytes < 0 {
		return "-" + Size(-bytes)
	}
	if bytes < 1024 {
		return fmt.Sprintf("%d B", bytes)
	}
	value := float64(bytes) / 1024
	unit := 0
	for value >= 1023.95 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}

// Age is a span of time for people, in its largest unit: "3 days".
func Age(d time.Duration) string {
	steps := []struct {
		unit time.Duration
		name string
	}{
		{365 * 24 * time.Hour, "year"},
		{24 * time.Hour, "day"},
		{time.Hour, "hour"},
		{time.Minute, "minute"},
	}
	for _, step := range steps {
		if d >= step.unit {
			return Count(int64(d/step.unit), step.name)
		}
	}
	return Count(int64(max(d, 0)/time.Second), "second")
}

// Count is a number with its noun: "1 file", "2 files". Nouns on -y take -ies.
func Count(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if stem, ok := strings.CutSuffix(noun, "y"); ok && !strings.HasSuffix(noun, "ay") && !strings.HasSuffix(noun, "ey") {
		return fmt.Sprintf("%d %sies", n, stem)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
