package process_test

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/services/standalone/internal/process"
)

func TestAProcessIsKnownByMoreThanItsNumber(t *testing.T) {
	t.Parallel()
	self, err := process.Of(os.Getpid())
	if err != nil || !self.Alive() {
		t.Fatalf("we are not alive: %v, %v", self, err)
	}
	other := self
	other.Started++
	if other.Alive() {
		t.Error("a process of another start time counts as the same")
	}
	if (process.ID{}).Alive() {
		t.Error("nobody is alive")
	}
}

func TestAProcessThatIgnoresTheFirstSignalGetsTheNext(t *testing.T) {
	t.Parallel()
	command := exec.Command("sh", "-c", `trap "" TERM; echo ready; while :; do sleep 0.05; done`)
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	id, err := process.Of(command.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	reaped := make(chan error, 1)
	go func() { reaped <- command.Wait() }()
	if err := id.Stop(t.Context(), 100*time.Millisecond, syscall.SIGTERM, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	<-reaped
	if id.Alive() {
		t.Error("it is still alive")
	}
	if err := id.Stop(t.Context(), time.Second, syscall.SIGTERM); err != nil {
		t.Errorf("stopping what is gone: %v", err)
	}
}
