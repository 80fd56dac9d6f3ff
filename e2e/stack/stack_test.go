package stack

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sys/unix"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/libs/natsconn"
)

// bare is a stack without the platform: only what it stands on.
func bare(t *testing.T) *Stack {
	t.Helper()
	bin := t.TempDir()
	for _, name := range []string{"slipwayd", "slipway-edge"} {
		if err := os.WriteFile(filepath.Join(bin, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s, err := newStack(Options{Bin: bin})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The test has closed it already unless it failed.
		_ = s.Close(context.Background())
	})
	return s
}

func TestWhatThePlatformStandsOnComesAndGoesWithoutATrace(t *testing.T) {
	t.Parallel()
	s := bare(t)
	if err := s.startNATS(t.Context()); err != nil {
		t.Fatal(err)
	}
	nc, err := natsconn.Connect(natsconn.Config{
		URL: s.NATS, SeedFile: filepath.Join(s.NATSKeys, "platform.nk"), Name: "test", Log: discard(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if err := natsconn.Provision(t.Context(), js, 1); err != nil {
		t.Error(err)
	}
	if _, err := s.startPostgres(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	for _, p := range s.Processes() {
		select {
		case <-p.Ended():
		default:
			t.Errorf("%s still runs", p.Name)
		}
	}
	if _, err := os.Stat(s.Dir); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
}

func TestWhatATestThatWasKilledLeftIsSweptByTheNext(t *testing.T) {
	t.Parallel()
	s := bare(t)
	if err := s.startNATS(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Nobody has the largest pid there can be.
	if err := os.WriteFile(filepath.Join(s.Dir, ownerFile), []byte(strconv.Itoa(1<<22)), 0o644); err != nil {
		t.Fatal(err)
	}
	next := bare(t)
	if _, err := os.Stat(s.Dir); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
	select {
	case <-s.Process(natsName).Ended():
	case <-time.After(5 * time.Second):
		t.Error("the abandoned NATS server still runs")
	}
	if err := next.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWhatIsKeptToBeLookedAtIsOnlyTheFiles(t *testing.T) {
	t.Parallel()
	s := bare(t)
	p, err := s.run(command{name: "talker", binary: "/bin/sh", args: []string{"-c", "trap 'exit 0' INT; echo last words; while :; do sleep 0.05; done"}})
	if err != nil {
		t.Fatal(err)
	}
	err = client.Poll(t.Context(), func(context.Context) (bool, string, error) {
		return strings.Contains(p.Tail(), "last words"), "silence", p.Running()
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Keep()
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(s.Dir); err != nil {
			t.Error(err)
		}
	})
	if p.Running() == nil {
		t.Error("the process still runs")
	}
	if abandoned(s.Dir) {
		t.Error("the next stack would sweep it")
	}
	if _, err := os.Stat(p.LogFile); err != nil {
		t.Error(err)
	}
}

func TestNoTwoStacksAreGivenOnePort(t *testing.T) {
	t.Parallel()
	one, two := bare(t), bare(t)
	had := len(one.ours)
	ports, err := one.freePorts(50)
	if err != nil {
		t.Fatal(err)
	}
	for _, port := range ports {
		lock := unix.Flock_t{Type: unix.F_WRLCK, Start: int64(port), Len: 1}
		if err := unix.FcntlFlock(two.reserved.Fd(), unix.F_OFD_SETLK, &lock); err == nil {
			t.Fatalf("port %d can be had by another stack", port)
		}
	}
	if got := len(one.ours) - had; got != 50 {
		t.Errorf("the stack was given %d ports", got)
	}
}

func TestAProcessThatEndsSaysWhy(t *testing.T) {
	t.Parallel()
	s := bare(t)
	p, err := s.run(command{name: "broken", binary: "/bin/sh", args: []string{"-c", "echo no room left; exit 3"}})
	if err != nil {
		t.Fatal(err)
	}
	<-p.Ended()
	err = s.WaitReady(t.Context())
	if err == nil || !strings.Contains(err.Error(), "broken ended") || !strings.Contains(err.Error(), "no room left") {
		t.Errorf("got %v", err)
	}
}

func TestTheReadmesAddressesBecomeThisPlatforms(t *testing.T) {
	t.Parallel()
	s := bare(t)
	got := s.Local("curl -H 'Host: a.apps.localhost' http://127.0.0.1:8000/ $(cat .slipway/credentials.json)")
	if strings.Contains(got, "8000") || strings.Contains(got, " .slipway") || !strings.Contains(got, s.Dir) {
		t.Errorf("got %s", got)
	}
}
