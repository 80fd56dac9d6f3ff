package stack

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/libs/natsconn"
)

// natsName is the process of the only NATS server, and begins those of several:
// nats-server-1, …
const natsName = "nats-server"

// startNATS starts a real NATS server that knows the platform's keys.
func (s *Stack) startNATS(ctx context.Context) error {
	binary, authorization, err := s.prepareNATS()
	if err != nil {
		return err
	}
	return s.startServer(ctx, binary, natsName, local(s.ports.NATS), authorization, "")
}

// startNATSCluster starts several real NATS servers that keep each stream together,
// and makes the platform's streams in them.
func (s *Stack) startNATSCluster(ctx context.Context, servers int) error {
	binary, authorization, err := s.prepareNATS()
	if err != nil {
		return err
	}
	ports, err := freePorts(2 * servers)
	if err != nil {
		return err
	}
	var urls, routes []string
	for n := range servers {
		urls = append(urls, "nats://"+local(ports[n]))
		routes = append(routes, strconv.Quote("nats://"+local(ports[servers+n])))
	}
	s.NATS = strings.Join(urls, ",")
	for n := range servers {
		cluster := fmt.Sprintf("cluster { name: e2e, listen: %q, routes: [%s] }", local(ports[servers+n]), strings.Join(routes, ", "))
		if err := s.startServer(ctx, binary, NATSServerName(n), local(ports[n]), authorization, cluster); err != nil {
			return err
		}
	}
	return s.provision(ctx, servers)
}

// NATSServerName is the process of the cluster's server with that number, from 0.
func NATSServerName(n int) string { return fmt.Sprintf("%s-%d", natsName, n+1) }

// prepareNATS returns the server's program and who may connect to it.
func (s *Stack) prepareNATS() (binary, authorization string, err error) {
	if binary, err = natsServer(s.bin); err != nil {
		return "", "", err
	}
	s.NATSKeys = filepath.Join(s.dataDir(), "nats", "keys")
	keys, err := natsconn.EnsureKeys(s.NATSKeys)
	if err != nil {
		return "", "", fmt.Errorf("make the NATS keys: %w", err)
	}
	authorization, err = keys.Authorization()
	return binary, authorization, err
}

func (s *Stack) startServer(ctx context.Context, binary, name, address, authorization, cluster string) error {
	dir := filepath.Join(s.dataDir(), "nats", name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of %s: %w", name, err)
	}
	path := filepath.Join(dir, "nats.conf")
	config := fmt.Sprintf(`listen: %q
server_name: %q
max_payload: 4MB
jetstream {
  store_dir: %q
  sync_interval: always
}
authorization: %s
%s`, address, name, filepath.Join(dir, "store"), authorization, cluster)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return fmt.Errorf("write the configuration of %s: %w", name, err)
	}
	p, err := s.run(command{name: name, binary: binary, args: []string{"-c", path}})
	if err != nil {
		return err
	}
	return waitListens(ctx, p, address)
}

// ConnectNATS joins the platform's NATS as the platform itself. close ends it.
func (s *Stack) ConnectNATS(name string) (js jetstream.JetStream, closeIt func(), err error) {
	nc, err := natsconn.Connect(natsconn.Config{
		URL: s.NATS, SeedFile: s.key(natsconn.RolePlatform), Name: name, Log: discard(),
	})
	if err != nil {
		return nil, nil, err
	}
	js, err = jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, nil, fmt.Errorf("use JetStream: %w", err)
	}
	return js, nc.Close, nil
}

// provision makes the streams as soon as the servers have found each other.
func (s *Stack) provision(ctx context.Context, replicas int) error {
	js, closeIt, err := s.ConnectNATS("e2e")
	if err != nil {
		return err
	}
	defer closeIt()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err = client.Poll(ctx, func(ctx context.Context) (bool, string, error) {
		bounded, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		err := natsconn.Provision(bounded, js, replicas)
		return err == nil, fmt.Sprint(err), nil
	})
	if err != nil {
		return fmt.Errorf("make the streams in the cluster: %w\n%s", err, s.Tails())
	}
	return nil
}

// waitListens waits until the process listens on the address.
func waitListens(ctx context.Context, p *Process, address string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	dialer := net.Dialer{Timeout: time.Second}
	err := client.Poll(ctx, func(ctx context.Context) (bool, string, error) {
		if err := p.Running(); err != nil {
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
