package reset

import (
	"strings"

	"nixos-go/pkg/keep"
)

// Names below the snapshots subvolume, in the folder of a volume.
const (
	NameClean       = "CLEAN"
	NamePrevious    = "PREVIOUS"
	NamePenultimate = "PENULTIMATE"
	NameCurrent     = "CURRENT"
	NameNext        = "NEXT"
	NameReplaced    = "REPLACED"
	agedPrefix      = "AGED-"
)

// Names in the root of a volume that are the toolkit's own.
const (
	// ReadyName is the file that says that the reset which made the volume
	// finished; it holds the Record.
	ReadyName = keep.ReadyName
	// TrashName is the folder of what the last reset moved out of the way.
	TrashName = keep.TrashName
)

// DefaultSnapshots is the subvolume of the snapshots when no plan names one.
const DefaultSnapshots = "@snapshots"

// reservedName reports whether a name in a volume's root is the toolkit's own.
func reservedName(name string) bool { return name == ReadyName || name == TrashName }

// isReserved reports whether a path is the toolkit's own, or lies below what is.
func isReserved(path string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return reservedName(first)
}

// IsAged reports whether a snapshot was rotated out and waits for the cleanup.
func IsAged(name string) bool { return strings.HasPrefix(name, agedPrefix) }
