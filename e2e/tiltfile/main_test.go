package tiltfile

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
)

// envApart tells the copy of this program that it is in a network of its own.
const envApart = "TILTFILE_TEST_APART"

// The Tiltfile's ports are fixed: in a network of its own they are always free.
func TestMain(m *testing.M) {
	if os.Getenv(envApart) == "" {
		os.Exit(runApart())
	}
	loopback, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(loopback)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bring the loopback interface up:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func runApart() int {
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	apart := exec.Command(self, os.Args[1:]...)
	apart.Stdin, apart.Stdout, apart.Stderr = os.Stdin, os.Stdout, os.Stderr
	apart.Env = append(os.Environ(), envApart+"=1")
	apart.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err = apart.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1)
	default:
		fmt.Fprintln(os.Stderr, "a platform in a network of its own needs root:", err)
		return 1
	}
}
