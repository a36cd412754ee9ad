package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// writer writes files until one fails, and counts them.
type writer struct {
	disk  *disk
	total amount
	err   error
}

// amount is a number of files and their size.
type amount struct {
	files int
	bytes int64
}

func (a amount) plus(size int64) amount { return amount{a.files + 1, a.bytes + size} }

// file writes a file, and makes the folders above it.
func (w *writer) file(path, text string) {
	if w.err != nil {
		return
	}
	full := w.disk.path(path)
	if w.err = os.MkdirAll(filepath.Dir(full), 0o755); w.err != nil {
		return
	}
	// A name that is a symlink (as in /etc on NixOS) becomes a file.
	_ = os.Remove(full)
	w.err = os.WriteFile(full, []byte(text), 0o644)
	w.total = w.total.plus(int64(len(text)))
}

// tree copies a folder into another.
func (w *writer) tree(ctx context.Context, from, into string) {
	if w.err != nil || !exists(from) {
		return
	}
	if w.err = copyTree(ctx, from, w.disk.path(into)); w.err != nil {
		return
	}
	w.err = filepath.WalkDir(w.disk.path(into, filepath.Base(from)), func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			w.total = w.total.plus(info.Size())
		}
		return err
	})
}

// files writes count files of up to size bytes into a folder.
func (w *writer) files(folder, pattern string, count, size int) {
	line := fmt.Appendf(nil, "%s, as good as any\n", pattern)
	text := bytes.Repeat(line, size/len(line)+1)
	for i := range count {
		if w.err != nil {
			return
		}
		// Sizes as they come: a few large ones, many small.
		n := size * (i*i*7%101 + 1) / 101
		w.file(filepath.Join(folder, fmt.Sprintf(pattern, i)), string(text[:n]))
	}
}

// A part is one thing that happens during a day.
type part struct {
	name string // for people
	kept bool
	work func(context.Context, *disk, *writer)
}

// day is the first one: what of it is kept and what is not.
func day(source string) []part {
	return []part{
		{"a source tree, checked out in ~/Projects", true, func(ctx context.Context, _ *disk, w *writer) {
			w.file("@home/demo/Projects/std/README", "The sources.\n")
			for _, dir := range []string{"crypto", "encoding", "go", "net", "os", "runtime"} {
				w.tree(ctx, filepath.Join(source, dir), "@home/demo/Projects/std")
			}
		}},
		{"a browser profile in ~/.mozilla", true, func(_ context.Context, _ *disk, w *writer) {
			const profile = "@home/demo/.mozilla/firefox/x1.default/"
			w.files(profile, "settings-%d.sqlite", 12, 400_000)
			w.files(profile+"storage/default", "https+++www.%d.example/ls/data.sqlite", 250, 8000)
		}},
		{"letters in ~/Documents, a host key in /etc/ssh", true, func(_ context.Context, _ *disk, w *writer) {
			w.files("@home/demo/Documents", "letter-%d.odt", 30, 90_000)
			w.file("@root/etc/ssh/ssh_host_ed25519_key", "not a real key\n")
		}},
		{"a database and a container in /var/lib", true, func(_ context.Context, d *disk, w *writer) {
			w.files("@root/var/lib/postgresql/16", "base/%d", 200, 30_000)
			if w.err == nil {
				w.err = os.MkdirAll(d.path("@root/var/lib/machines"), 0o700)
			}
			if w.err == nil {
				w.err = d.create("@root/var/lib/machines/web") // as systemd does
			}
			w.files("@root/var/lib/machines/web", "usr/share/%d", 40, 4000)
		}},
		{"the browser's cache, a build directory", false, func(_ context.Context, _ *disk, w *writer) {
			w.files("@home/demo/.mozilla/firefox/x1.default/cache2/entries", "%08X", 1200, 20_000)
			w.files("@home/demo/Projects/std/build", "obj/%d.o", 900, 30_000)
		}},
		{"downloads, logs, temporary files", false, func(_ context.Context, _ *disk, w *writer) {
			w.files("@home/demo/Downloads", "download-%d.zip", 25, 600_000)
			w.file("@home/demo/Downloads/invoice.pdf", "The one that should have gone to Documents.\n")
			w.files("@home/demo/.cache", "thumbnails/large/%d.png", 500, 9000)
			w.files("@root/var/log", "journal/%d.log", 80, 50_000)
			w.files("@root/tmp", "unpacked/part-%d", 120, 3000)
		}},
		{"a tool from the web, a setting tried out, a mistake", false, func(_ context.Context, d *disk, w *writer) {
			w.file("@root/usr/local/bin/curl-from-the-web", "#!/bin/sh\n")
			w.file("@root/etc/cron.d/updater", "* * * * * root /usr/local/bin/curl-from-the-web\n")
			w.file("@root/etc/hostname", "tried-another-name\n")
			w.file("@home/demo/.bashrc", "alias ls='rm -rf'\n")
			if w.err == nil {
				w.err = os.Chmod(d.path("@root/etc/passwd"), 0o666)
			}
			if w.err == nil {
				w.err = os.Remove(d.path("@root/etc/motd"))
			}
		}},
	}
}

// nextDay is a shorter one: what the cut-off resets meet.
func nextDay(n int) part {
	name := fmt.Sprintf("notes-%d.odt", n)
	return part{"more of the same", false, func(_ context.Context, _ *disk, w *writer) {
		w.files("@home/demo/Documents", fmt.Sprintf("more-%d-%%d.odt", n), 5, 9000)
		w.files("@home/demo/Downloads", fmt.Sprintf("again-%d-%%d.zip", n), 20, 50_000)
		w.file("@home/demo/Downloads/"+name, "Written into the wrong folder.\n")
		w.file("@home/demo/.bashrc", fmt.Sprintf("alias day=%d\n", n))
		w.files("@root/tmp", fmt.Sprintf("unpacked-%d/part-%%d", n), 60, 3000)
		w.file("@root/etc/hostname", fmt.Sprintf("name-%d\n", n))
		w.files("@root/var/lib/postgresql/16", fmt.Sprintf("base/more-%d-%%d", n), 5, 9000)
	}}
}

// happen plays a part and tells how much was written.
func (d *disk) happen(ctx context.Context, p part) (amount, error) {
	w := &writer{disk: d}
	p.work(ctx, d, w)
	if w.err != nil {
		return amount{}, fmt.Errorf("%s: %w", p.name, w.err)
	}
	return w.total, ctx.Err()
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
