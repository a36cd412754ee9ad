package functional

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"nixos-go/pkg/testx"
	"nixos-go/vmtest"
	"nixos-go/vmtest/accel"
	"nixos-go/vmtest/debian"
	"nixos-go/vmtest/guest/full"
	"nixos-go/vmtest/guest/host"
)

// shared is what all tests of this package stand on, made by the first one that
// needs it.
var shared = sync.OnceValues(makeHost) //nolint:gochecknoglobals // once for the process

// setUpPatience bounds the making of the guest, which fetches packages where
// there is no cache.
const setUpPatience = 15 * time.Minute

func makeHost() (*host.Host, error) {
	ctx, cancel := context.WithTimeout(context.Background(), setUpPatience)
	defer cancel()
	root, err := vmtest.Root()
	if err != nil {
		return nil, err
	}
	cache, err := vmtest.CacheDir()
	if err != nil {
		return nil, err
	}
	// Before the tests run side by side, and would all look for themselves.
	if _, err := accel.Probe(ctx, cache, debian.Cache{Dir: filepath.Join(cache, "debian")}); err != nil {
		return nil, err
	}
	return host.Build(ctx, root, cache, workDir)
}

var workDir string //nolint:gochecknoglobals // the folder of this process

func TestMain(m *testing.M) {
	os.Exit(runIn(m))
}

func runIn(m *testing.M) int {
	dir, err := os.MkdirTemp("", "vm-functional-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	workDir = dir
	status := m.Run()
	if status != 0 {
		// The machines that were kept need the disk of tools.
		fmt.Fprintf(os.Stderr, "kept for the machines of the tests that failed: %s\n", dir)
		return status
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// need ends the test where the lane is not asked for or cannot run; else it is
// the host.
func need(t *testing.T) *host.Host {
	t.Helper()
	if os.Getenv("VM") != "full" {
		t.Skip("boots whole machines, which takes minutes: VM=full runs it (just vm)")
	}
	if err := full.Check(); err != nil {
		testx.Unavailable(t, err.Error())
	}
	vmtest.Stages(t) // may have orders to take the cache away first
	l, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return l
}
