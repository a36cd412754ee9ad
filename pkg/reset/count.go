package reset

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// countNames counts the names that removeTree would delete, the first one included.
func countNames(ctx context.Context, dir *os.File, name string) (int64, error) {
	count := int64(1)
	for list := []string{name}; len(list) > 0; {
		if err := ctx.Err(); err != nil {
			return count, err
		}
		path := list[len(list)-1]
		list = list[:len(list)-1]
		f, err := openDir(dir, path)
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue
		}
		if err != nil {
			return count, err
		}
		entries, err := f.ReadDir(-1)
		f.Close()
		if err != nil {
			return count, err
		}
		count += int64(len(entries))
		for _, e := range entries {
			if e.IsDir() {
				list = append(list, path+"/"+e.Name())
			}
		}
	}
	return count, nil
}
