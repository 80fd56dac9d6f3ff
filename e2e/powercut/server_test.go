package powercut

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sys/unix"

	"github.com/slipway-paas/slipway/libs/eventstore"
	eventlog "github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/natsconn"
)

// What this program is told when it is to be the server instead of the tests.
const (
	envStore    = "POWERCUT_STORE"
	envKeys     = "POWERCUT_KEYS"
	envUnsynced = "POWERCUT_UNSYNCED"
)

func TestMain(m *testing.M) {
	if os.Getenv(envStore) == "" {
		os.Exit(m.Run())
	}
	if err := serve(os.Getenv(envStore), os.Getenv(envKeys), os.Getenv(envUnsynced) != ""); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serve is the server's process: it says its address and serves until its input ends.
func serve(store, keyDir string, unsynced bool) error {
	keys, err := natsconn.EnsureKeys(keyDir)
	if err != nil {
		return err
	}
	var url string
	if unsynced {
		ns, err := startUnsynced(store)
		if err != nil {
			return err
		}
		url = ns.ClientURL()
	} else {
		shipped, err := natsconn.StartEmbedded(natsconn.EmbeddedConfig{
			Listen: "127.0.0.1:0", StoreDir: store, Keys: keys, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		})
		if err != nil {
			return err
		}
		defer shipped.Stop()
		url = shipped.URL()
	}
	fmt.Println(url)
	_, _ = bufio.NewReader(os.Stdin).ReadByte() // returns when whoever started us has ended
	return nil
}

// startUnsynced is a server with NATS' own default: the disk is synced now and then.
func startUnsynced(store string) (*server.Server, error) {
	ns, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: store,
		JetStreamMaxStore: 1 << 50, // as the shipped one: what buckets reserve is more than this disk has
	})
	if err != nil {
		return nil, err
	}
	ns.Start()
	if !ns.ReadyForConnections(15 * time.Second) {
		return nil, errors.New("the NATS server does not answer")
	}
	return ns, nil
}

// natsServer is that process, seen from the test.
type natsServer struct {
	t        *testing.T
	command  *exec.Cmd
	url      string
	keys     string
	unsynced bool
}

// startServer starts a server whose streams are on the disk.
func startServer(t *testing.T, d *disk, keys string, unsynced bool) *natsServer {
	t.Helper()
	s := &natsServer{t: t, keys: keys, unsynced: unsynced, command: exec.Command(os.Args[0])}
	s.command.Env = append(os.Environ(), envStore+"="+filepath.Join(d.path(), "store"), envKeys+"="+keys)
	if unsynced {
		s.command.Env = append(s.command.Env, envUnsynced+"=yes")
	}
	s.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said strings.Builder
	s.command.Stderr = &said
	if _, err := s.command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := s.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		s.kill()
		t.Fatalf("the server does not start: %v\n%s", err, said.String())
	}
	s.url = strings.TrimSpace(line)
	return s
}

// open connects and makes sure of the platform's streams.
func (s *natsServer) open() eventstore.Store {
	s.t.Helper()
	config := natsconn.Config{URL: s.url, Name: "powercut", Log: slog.New(slog.DiscardHandler)}
	if !s.unsynced {
		config.SeedFile = filepath.Join(s.keys, string(natsconn.RolePlatform)+".nk")
	}
	nc, err := natsconn.Connect(config)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := natsconn.Provision(s.t.Context(), js, 1); err != nil {
		s.t.Fatal(err)
	}
	return eventlog.New(js, slog.New(slog.DiscardHandler))
}

// freeze stops the process where it is and waits until it has.
func (s *natsServer) freeze() {
	s.t.Helper()
	if err := s.command.Process.Signal(syscall.SIGSTOP); err != nil {
		s.t.Fatal(err)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(s.command.Process.Pid, &status, unix.WUNTRACED, nil); err != nil || !status.Stopped() {
		s.t.Fatalf("the server does not freeze: %v (status %v)", err, status)
	}
}

func (s *natsServer) kill() {
	if s.command.ProcessState != nil {
		return
	}
	_ = s.command.Process.Kill() // it may have ended
	_ = s.command.Wait()         // it was killed: that is what it says
}
