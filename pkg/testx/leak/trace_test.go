package leak

import "testing"

func TestAllowed(t *testing.T) {
	for line, want := range map[string]bool{
		`17 write(5</memfd:secret>(deleted), "s", 1) = 1`:            true,
		`17 write(5</memfd:secret (deleted)>, "s", 1) = 1`:           true,
		`17  write(8<pipe:[4711]>, "s", 1 <unfinished ...>`:          true,
		`17 write(8</tmp/secret>, "s", 1) = 1`:                       false,
		`17 write(8</tmp/pipe:[1]>, "s", 1) = 1`:                     false,
		`17 write(1</dev/pts/0>, "s", 1) = 1`:                        false,
		`17 write(5<socket:[4711]>, "s", 1) = 1`:                     false,
		`17 sendto(5<pipe:[4711]>, "s", 1, 0, NULL, 0) = 1`:          false,
		`17 execve("/bin/x", ["x", "s"], ["A=write(8<pipe:[1]>, "])`: false,
		`17 openat(AT_FDCWD</tmp>, "s", O_WRONLY|O_CREAT, 0600) = 3`: false,
		`17 rename("write(8<pipe:[4711]>, ", "s") = 0`:               false,
	} {
		if got := allowed.MatchString(line); got != want {
			t.Errorf("%s: allowed %t, want %t", line, got, want)
		}
	}
}
