package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/libs/datadir"
	"github.com/slipway-paas/slipway/libs/natsconn"
)

type connection = nats.Conn

// Source is a platform that can be backed up. Close it.
type Source struct {
	dir      datadir.Dir
	noMaster bool
	nats     *connection
	js       jetstream.JetStream
	close    []func()
}

// At says where a platform's NATS server is; the zero value finds it by the data
// directory: the daemon's, one of the operator's own, or, when no daemon runs, the
// streams in the directory themselves.
type At struct {
	// NATS is nats://host:port, or several with commas.
	NATS string
	// Key is the key file of the platform's role.
	Key string
	// NoMasterKey says that the platform's master key is not in its data directory, for
	// the environment gives it.
	NoMasterKey bool
}

// Open connects to the platform of a data directory with the platform's own key:
// whoever may read that may take a backup.
func Open(dir string, at At, log *slog.Logger) (*Source, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("the data directory: %w", err)
	}
	s := &Source{dir: datadir.Dir(dir), noMaster: at.NoMasterKey}
	must := s.dir.MasterKey()
	if at.NoMasterKey {
		must = s.dir.NATSKeys()
	}
	if _, err := os.Stat(must); err != nil {
		return nil, fmt.Errorf("%s is no data directory of a platform, or not yours to read; say which one with --data-dir: %w", dir, err)
	}
	if err := s.connect(at, log); err != nil {
		s.Close()
		return nil, err
	}
	if s.js, err = jetstream.New(s.nats); err != nil {
		s.Close()
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	return s, nil
}

func (s *Source) connect(at At, log *slog.Logger) error {
	if at.NATS == "" {
		var err error
		if at, err = s.find(at.Key); err != nil {
			return err
		}
	}
	if at.Key == "" {
		at.Key = filepath.Join(s.dir.NATSKeys(), string(natsconn.RolePlatform)+".nk")
	}
	if at.NATS == "" {
		held, err := datadir.Acquire(string(s.dir))
		if err != nil {
			return err
		}
		s.close = append(s.close, func() { _ = held.Release() }) // the process's end does it too
		return s.serveHere(log)
	}
	var err error
	s.nats, err = natsconn.Connect(natsconn.Config{URL: at.NATS, SeedFile: at.Key, Name: "backup", Log: log})
	if err == nil {
		s.close = append(s.close, s.nats.Close)
	}
	return err
}

// serveHere reads the streams of a platform that does not run.
func (s *Source) serveHere(log *slog.Logger) error {
	if _, err := os.Stat(s.dir.NATSStore()); err != nil {
		return fmt.Errorf("there are no streams in %s; say where NATS is with --nats: %w", s.dir, err)
	}
	keys, err := natsconn.EnsureKeys(s.dir.NATSKeys())
	if err != nil {
		return err
	}
	nc, stop, err := serve(s.dir.NATSStore(), keys, log)
	if err != nil {
		return err
	}
	s.nats = nc
	s.close = append(s.close, stop)
	return nil
}

// find reads in the daemon's settings where NATS is. No address: nobody serves it.
func (s *Source) find(key string) (At, error) {
	at := At{Key: key}
	text, err := os.ReadFile(s.dir.Settings())
	if errors.Is(err, fs.ErrNotExist) {
		return at, nil
	}
	if err != nil {
		return at, fmt.Errorf("read the daemon's settings: %w", err)
	}
	settings, err := yaml.Parser().Unmarshal(text)
	if err != nil {
		return at, fmt.Errorf("read the daemon's settings %s: %w", s.dir.Settings(), err)
	}
	address, _ := settings["nats"].(string)
	if strings.Contains(address, "://") {
		at.NATS = address
		if own, _ := settings["nats-key"].(string); at.Key == "" {
			at.Key = own
		}
		return at, nil
	}
	held, err := datadir.Acquire(string(s.dir))
	if err == nil {
		return at, held.Release()
	}
	if !errors.Is(err, datadir.ErrInUse) {
		return at, err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return at, fmt.Errorf("the daemon's NATS address %q: %w", address, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	at.NATS = "nats://" + net.JoinHostPort(host, port)
	return at, nil
}

// Close lets go of the platform.
func (s *Source) Close() {
	for i := len(s.close) - 1; i >= 0; i-- {
		s.close[i]()
	}
}
