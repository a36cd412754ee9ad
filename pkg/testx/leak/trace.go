package leak

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"nixos-go/pkg/testx"
	"nixos-go/pkg/testx/luksfile"
)

// traced are the system calls that could carry a secret out of a process:
// to a program, to a file, to a socket, or as a name. Those with a question mark
// are not on every architecture.
const traced = "execve,execveat,write,writev,pwrite64,pwritev,sendto,sendmsg,openat,?open,?creat,mkdirat,?mkdir," +
	"?symlink,symlinkat,?link,linkat,?rename,?renameat,renameat2,setxattr,fsetxattr,prctl,add_key"

// allowed are the two ways on which secrets travel between programs: a pipe,
// and a file in memory that has no name. (strace writes "(deleted)" before or
// after the bracket.)
var allowed = regexp.MustCompile(`^\d+ +write\(\d+<(?:pipe:\[\d+\]|/memfd:secret(?: \(deleted\))?)>(?:\(deleted\))?, `)

// Trace runs the test's own program, and whatever it starts, under strace(1):
// with arguments, and variables added to the environment. Its secrets
// may be written into pipes and into files in memory, and to nothing else: not
// into the arguments or the environment of a program, not into a file, not into
// a message. It fails, too, where no secret was seen at all.
func Trace(t *testing.T, arguments, environment []string, secrets ...string) {
	t.Helper()
	luksfile.Need(t, "strace")
	if out, err := exec.Command("strace", "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		testx.Unavailable(t, "strace does not work here: "+err.Error()+": "+string(out))
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "trace")
	args := []string{"-f", "-y", "-v", "-qq", "-s", "65536", "-e", "signal=none", "-e", "trace=" + traced, "-o", log, program}
	strace := exec.Command("strace", append(args, arguments...)...)
	strace.Env = append(os.Environ(), environment...)
	if out, err := strace.CombinedOutput(); err != nil {
		t.Fatalf("%q under strace = %v\n%s", arguments, err, out)
	}
	file, err := os.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	calls, handed := 0, 0
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, 16<<20)
	for scanner.Scan() {
		calls++
		line := scanner.Text()
		for i, secret := range secrets {
			switch {
			case !strings.Contains(line, secret):
			case allowed.MatchString(line):
				handed++
			default:
				t.Errorf("secret %d in a system call: %.300s", i, line)
			}
		}
	}
	if err := scanner.Err(); err != nil {
		t.Fatal(err)
	}
	if handed < len(secrets) {
		t.Errorf("of %d secrets %d were seen on their way in %d system calls: the trace does not show what it should", len(secrets), handed, calls)
	}
}
