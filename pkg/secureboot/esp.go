package secureboot

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Role is what an EFI program on the ESP is there for.
type Role string

// The roles.
const (
	// Loader is systemd-boot, in its own place and in the fallback's.
	Loader Role = "loader"
	// Generation is a stub of a NixOS generation.
	Generation Role = "generation"
	// Payload is an unsigned kernel or initrd that a stub vouches for.
	Payload Role = "payload"
	// Other is what somebody else put there.
	Other Role = "other"
)

// File is one EFI program on the ESP, or a file of a stub's.
type File struct {
	// Path is relative to the ESP.
	Path string `json:"path"`
	Role Role   `json:"role"`
	// Signer is who signed it, "" for nobody that counts.
	Signer string `json:"signer,omitempty"`
	// Vouched says that a stub has the hash of this payload.
	Vouched bool `json:"vouched,omitempty"`
	// Problem is what keeps it from booting under Secure Boot, "" for nothing.
	Problem string `json:"problem,omitempty"`
}

// Report is what a look at an ESP showed.
type Report struct {
	Files []File `json:"files"`
	// Generations are the numbers of the generations that have a stub, the
	// newest first.
	Generations []int `json:"generations"`
	// Problems are what would keep NixOS from booting under Secure Boot.
	Problems []string `json:"problems"`
}

// Sound tells whether NixOS would boot under Secure Boot.
func (r *Report) Sound() bool { return len(r.Problems) == 0 }

// architectures are the names of boot loaders by architecture (UEFI
// Specification, 3.5.1.1).
var loaderNames = map[string]bool{
	"efi/systemd/systemd-bootx64.efi": true, "efi/systemd/systemd-bootaa64.efi": true,
	"efi/boot/bootx64.efi": true, "efi/boot/bootaa64.efi": true,
}

// generationPattern is how lanzaboote names its stubs.
var generationPattern = regexp.MustCompile(`^nixos-generation-(\d+)[-.]`)

// isBelow compares as FAT does, without case.
func isBelow(name, folder string) bool {
	return strings.HasPrefix(strings.ToLower(name), strings.ToLower(folder)+"/")
}

// Inspect looks at every EFI program on an ESP: who signed it, and whether the
// stubs' kernels and initrds are those that the stubs vouch for. Own is the
// owner's db certificate; trusted are all that the firmware will have, own
// among them.
func Inspect(esp string, own Certificate, trusted []Certificate) (Report, error) {
	report := Report{Files: []File{}, Generations: []int{}, Problems: []string{}}
	names, err := programs(esp)
	if err != nil {
		return report, err
	}
	payloads := map[string]bool{}
	for _, name := range names {
		if roleOf(name) == Generation {
			for _, f := range inspectGeneration(esp, name, own, &report) {
				if f.Role == Payload && payloads[f.Path] {
					continue
				}
				payloads[f.Path] = f.Role == Payload
				report.Files = append(report.Files, f)
			}
		}
	}
	loaders := 0
	for _, name := range names {
		switch role := roleOf(name); {
		case role == Generation, payloads[name]:
		case role == Loader:
			loaders++
			report.Files = append(report.Files, inspectProgram(esp, name, role, []Certificate{own}))
		case isBelow(name, "EFI/nixos"):
			// A kernel that no stub needs any more: rubbish, and no danger.
			report.Files = append(report.Files, File{Path: name, Role: Payload})
		default:
			report.Files = append(report.Files, inspectProgram(esp, name, Other, trusted))
		}
	}
	report.judge(loaders)
	return report, nil
}

// judge sums up: what belongs to NixOS must be sound; what others put there is
// told, and is theirs.
func (r *Report) judge(loaders int) {
	if loaders == 0 {
		r.Problems = append(r.Problems, "systemd-boot is not on the EFI partition")
	}
	if len(r.Generations) == 0 {
		r.Problems = append(r.Problems, "no generation of lanzaboote's is on the EFI partition")
	}
	for _, f := range r.Files {
		if f.Problem != "" && f.Role != Other {
			r.Problems = append(r.Problems, f.Path+": "+f.Problem)
		}
	}
	slices.SortFunc(r.Generations, func(a, b int) int { return b - a })
	r.Generations = slices.Compact(r.Generations)
	slices.SortFunc(r.Files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
}

// programs are the EFI programs below EFI/, by their names.
func programs(esp string) ([]string, error) {
	var names []string
	err := filepath.WalkDir(filepath.Join(esp, "EFI"), func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.Type().IsRegular() && strings.EqualFold(path.Ext(name), ".efi") {
			relative, err := filepath.Rel(esp, name)
			if err != nil {
				return err
			}
			names = append(names, relative)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s holds no folder EFI: is the EFI partition mounted there? %w", esp, err)
	}
	return names, err
}

func roleOf(name string) Role {
	switch {
	case loaderNames[strings.ToLower(name)]:
		return Loader
	case isBelow(name, "EFI/Linux") && generationPattern.MatchString(path.Base(name)):
		return Generation
	default:
		return Other
	}
}

func inspectProgram(esp, name string, role Role, trusted []Certificate) File {
	f := File{Path: name, Role: role}
	image, err := OpenImage(filepath.Join(esp, name))
	if err == nil {
		var signer Certificate
		signer, err = image.SignedBy(trusted)
		f.Signer = signer.Name
	}
	if err != nil {
		f.Problem = err.Error()
	}
	return f
}

// inspectGeneration checks a stub and what it points at.
func inspectGeneration(esp, name string, own Certificate, report *Report) []File {
	f := inspectProgram(esp, name, Generation, []Certificate{own})
	image, err := OpenImage(filepath.Join(esp, name))
	if err != nil {
		return []File{f} // told already
	}
	stub, isStub, err := image.Stub()
	switch {
	case err != nil:
		f.Problem = err.Error()
	case !isStub:
		f.Problem = "not a stub of lanzaboote"
	default:
		if match := generationPattern.FindStringSubmatch(path.Base(name)); match != nil {
			if number, err := strconv.Atoi(match[1]); err == nil {
				report.Generations = append(report.Generations, number)
			}
		}
		return []File{
			f,
			inspectPayload(esp, stub.Kernel, stub.KernelHash),
			inspectPayload(esp, stub.Initrd, stub.InitrdHash),
		}
	}
	return []File{f}
}

func inspectPayload(esp, name string, want [sha256.Size]byte) File {
	f := File{Path: name, Role: Payload}
	sum, err := HashFile(filepath.Join(esp, name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.Problem = "missing"
	case err != nil:
		f.Problem = err.Error()
	case !bytes.Equal(sum, want[:]):
		f.Problem = "not the file that the signed stub vouches for"
	default:
		f.Vouched = true
	}
	return f
}

// HashFile is the SHA-256 of a file.
func HashFile(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return nil, err
	}
	return sum.Sum(nil), nil
}
