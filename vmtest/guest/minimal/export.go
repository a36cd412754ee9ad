package minimal

import "context"

// FindKernel finds the kernel of an unpacked tree, as a file that QEMU starts
// without the guest having to unpack it, and its release.
func FindKernel(ctx context.Context, root string) (kernel, release string, err error) {
	return findKernel(ctx, root)
}
