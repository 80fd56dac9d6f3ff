package stack

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// natsName is the process of the only NATS server, and begins those of several:
// nats-server-1, …
const natsName = "nats-server"

// startNATS starts a real NATS server that knows the platform's keys.
func (s *Stack) startNATS(ctx context.Context) error {
	binary, keys, err := s.prepareNATS()
	if err != nil {
		return err
	}
	return s.startServer(ctx, binary, natsName, local(s.ports.NATS), keys, "")
}

// startNATSCluster starts several real NATS servers that keep each stream together,
// and makes the platform's streams in them.
func (s *Stack) startNATSCluster(ctx context.Context, servers int) error {
	binary, keys, err := s.prepareNATS()
	if err != nil {
		return err
	}
	ports, err := s.freePorts(2 * servers)
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
		if err := s.startServer(ctx, binary, NATSServerName(n), local(ports[n]), keys, cluster); err != nil {
			return err
		}
	}
	return s.provision(ctx, servers)
}

// NATSServerName is the process of the cluster's server with that number, from 0.
func NATSServerName(n int) string { return fmt.Sprintf("%s-%d", natsName, n+1) }

// prepareNATS returns the server's program and who may connect to it.
func (s *Stack) prepareNATS() (binary string, keys natsconn.Keys, err error) {
	if binary, err = natsServer(s.bin); err != nil {
		return "", natsconn.Keys{}, err
	}
	s.NATSKeys = filepath.Join(s.dataDir(), "nats", "keys")
	if keys, err = natsconn.EnsureKeys(s.NATSKeys, firstNode); err != nil {
		return "", natsconn.Keys{}, fmt.Errorf("make the NATS keys: %w", err)
	}
	return binary, keys, nil
}

func (s *Stack) startServer(ctx context.Context, binary, name, address string, keys natsconn.Keys, cluster string) error {
	dir := filepath.Join(s.dataDir(), "nats", name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of %s: %w", name, err)
	}
	path := filepath.Join(dir, "nats.conf")
	leaf, err := s.freePorts(1)
	if err != nil {
		return err
	}
	s.leaves = append(s.leaves, "nats-leaf://"+local(leaf[0]))
	config := fmt.Sprintf(`listen: %q
server_name: %q
max_payload: 4MB
jetstream {
  store_dir: %q
  # What buckets reserve is no reason to refuse them on a small disk.
  max_file_store: 1PB
  sync_interval: always
}
include "users.conf"
leafnodes { listen: %q }
mappings { %q: %q }
%s`, address, name, filepath.Join(dir, "store"), local(leaf[0]), subjects.SubscriptionsAPI, subjects.JetStreamAPI, cluster)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return fmt.Errorf("write the configuration of %s: %w", name, err)
	}
	if err := s.writeUsers(name, keys); err != nil {
		return err
	}
	p, err := s.run(command{name: name, binary: binary, args: []string{"-c", path}})
	if err != nil {
		return err
	}
	return waitListens(ctx, p, address)
}

// leafFlags say where the server for NATS clients outside joins the stack's own.
func (s *Stack) leafFlags() []string {
	if len(s.leaves) == 0 {
		return nil
	}
	return []string{"--subscriptions-leaf", strings.Join(s.leaves, ","), "--subscriptions-leaf-key", s.key(natsconn.RoleSubscriptions)}
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

// nodeKey is the file of the node's key, made when the node is new. It waits until NATS
// knows it: servers of our own are told at their start, the daemon's finds it by itself.
func (s *Stack) nodeKey(ctx context.Context, id string) (string, error) {
	keys, err := natsconn.EnsureKeys(s.NATSKeys, id)
	if err != nil {
		return "", fmt.Errorf("make the NATS key of node %s: %w", id, err)
	}
	if err := s.tellServers(keys); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err = client.Poll(ctx, func(context.Context) (bool, string, error) {
		nc, err := natsconn.Connect(natsconn.Config{
			URL: s.NATS, SeedFile: keys.NodeSeedFile(id), Role: natsconn.RoleNode, Node: id, Name: "e2e", Log: discard(),
		})
		if err != nil {
			return false, err.Error(), nil
		}
		nc.Close()
		return true, "", nil
	})
	if err != nil {
		return "", fmt.Errorf("NATS does not know the key of node %s: %w", id, err)
	}
	return keys.NodeSeedFile(id), nil
}

// tellServers gives NATS servers of the stack's own who may connect now, without a restart.
func (s *Stack) tellServers(keys natsconn.Keys) error {
	s.mu.Lock()
	servers := slices.DeleteFunc(slices.Clone(s.processes), func(p *Process) bool { return !strings.HasPrefix(p.Name, natsName) })
	s.mu.Unlock()
	for _, p := range servers {
		if p.Running() != nil {
			continue // it is told when it starts again
		}
		if err := s.writeUsers(p.Name, keys); err != nil {
			return err
		}
		if err := p.command.Process.Signal(syscall.SIGHUP); err != nil {
			return fmt.Errorf("have %s read its users: %w", p.Name, err)
		}
	}
	return nil
}

func (s *Stack) writeUsers(server string, keys natsconn.Keys) error {
	path := filepath.Join(s.dataDir(), "nats", server, "users.conf")
	if err := os.WriteFile(path, []byte(keys.Users()), 0o600); err != nil {
		return fmt.Errorf("write the users of %s: %w", server, err)
	}
	return nil
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
