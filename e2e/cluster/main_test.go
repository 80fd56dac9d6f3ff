package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// envDir names the tests' directory to the copy of this program that runs them in a
// network namespace of its own.
const envDir = "CLUSTER_TEST_DIR"

func TestMain(m *testing.M) {
	if os.Getenv(envDir) != "" {
		os.Exit(m.Run())
	}
	os.Exit(runApart())
}

// runApart runs this program again in a network namespace of its own: whatever
// becomes of the tests, the machine's network is as before.
func runApart() int {
	dir, err := os.MkdirTemp("", "slipway-cluster-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	apart := exec.Command(self, os.Args[1:]...)
	apart.Stdin, apart.Stdout, apart.Stderr = os.Stdin, os.Stdout, os.Stderr
	// Clients take the CAs they trust from the system, or from here.
	apart.Env = append(os.Environ(), envDir+"="+dir, "SSL_CERT_FILE="+caFile(dir))
	apart.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err = apart.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1)
	default:
		fmt.Fprintln(os.Stderr, "a cluster in networks of its own needs root:", err)
		return 1
	}
}
