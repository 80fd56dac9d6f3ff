package stack

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/libs/natsconn"
)

const natsName = "nats-server"

// startNATS starts a real NATS server that knows the platform's keys.
func (s *Stack) startNATS(ctx context.Context) error {
	binary, err := natsServer(s.bin)
	if err != nil {
		return err
	}
	dir := filepath.Join(s.dataDir(), "nats")
	s.NATSKeys = filepath.Join(dir, "keys")
	keys, err := natsconn.EnsureKeys(s.NATSKeys)
	if err != nil {
		return fmt.Errorf("make the NATS keys: %w", err)
	}
	authorization, err := keys.Authorization()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "nats.conf")
	config := fmt.Sprintf(`listen: %q
max_payload: 4MB
jetstream {
  store_dir: %q
  sync_interval: always
}
authorization: %s`, local(s.ports.NATS), filepath.Join(dir, "store"), authorization)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return fmt.Errorf("write the NATS server's configuration: %w", err)
	}
	p, err := s.run(command{name: natsName, binary: binary, args: []string{"-c", path}})
	if err != nil {
		return err
	}
	return waitListens(ctx, p, local(s.ports.NATS))
}

// waitListens waits until the process listens on the address.
func waitListens(ctx context.Context, p *Process, address string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	dialer := net.Dialer{Timeout: time.Second}
	err := client.Poll(ctx, func(ctx context.Context) (bool, string, error) {
		if err := p.running(); err != nil {
			return false, "", err
		}
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return false, err.Error(), nil
		}
		return true, "", conn.Close()
	})
	if err != nil {
		return fmt.Errorf("%s does not listen on %s: %w\n%s", p.Name, address, err, p.Tail())
	}
	return nil
}
