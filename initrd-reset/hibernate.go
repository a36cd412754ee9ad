package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A hibernated machine's image expects its disk as it was left: nothing may be
// written, not even by a mount. The unit comes after the resume was tried, so an
// image that still waits is one that somebody may yet want to resume.

// The signature of an image, in the last bytes of the first page of the swap area
// (kernel/power/swap.c: HIBERNATE_SIG, struct swsusp_header).
const (
	imageSignature = "S1SUSPEND"
	signatureRoom  = 10 // sizeof(swsusp_header.sig)
)

// checkHibernation refuses when an image waits.
func checkHibernation(m machine) error {
	if fileExists(m.hibernateLocation) {
		return errors.New("a hibernated image waits (EFI variable HibernateLocation): resume it, or clear the variable with " +
			"`systemctl start systemd-hibernate-clear.service`")
	}
	text, err := os.ReadFile(m.commandLine)
	if err != nil {
		return err
	}
	device, found := parameter(string(text), "resume")
	if !found || device == "" {
		return nil
	}
	offset := int64(0)
	if value, found := parameter(string(text), "resume_offset"); found {
		if offset, err = strconv.ParseInt(value, 10, 64); err != nil {
			return fmt.Errorf("kernel command line: resume_offset: %w", err)
		}
	}
	waits, err := imageWaits(resumePath(device, m.devices), offset)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a device that is not there holds no image
	}
	if err != nil {
		return fmt.Errorf("look for a hibernated image (resume=%s): %w", device, err)
	}
	if waits {
		return fmt.Errorf("a hibernated image waits on %s: resume it, or drop it with `mkswap`", device)
	}
	return nil
}

// imageWaits reads the signature of the swap area that begins offset pages, of the
// size that the running kernel uses, into a device.
func imageWaits(path string, offset int64) (bool, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	signature := make([]byte, len(imageSignature))
	_, err = f.ReadAt(signature, (offset+1)*int64(os.Getpagesize())-signatureRoom)
	if errors.Is(err, io.EOF) {
		return false, nil // the device ends before: no image fits there
	}
	return err == nil && string(signature) == imageSignature, err
}

// resumePath gives the device that resume= names: by path, by the tags that udev
// makes links of, or by number.
func resumePath(device, devices string) string {
	links := map[string]string{
		"UUID": "by-uuid", "LABEL": "by-label", "PARTUUID": "by-partuuid", "PARTLABEL": "by-partlabel",
	}
	if tag, value, found := strings.Cut(device, "="); found && links[tag] != "" {
		return filepath.Join(devices, "disk", links[tag], value)
	}
	if path, found := strings.CutPrefix(device, "/dev/"); found {
		return filepath.Join(devices, path)
	}
	if major, minor, found := strings.Cut(device, ":"); found && !strings.Contains(minor, ":") {
		return filepath.Join(devices, "block", major+":"+minor)
	}
	return device
}
