package stack

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/slipway-paas/slipway/libs/natsconn"
)

// Daemon is the name of the standalone platform's process.
const Daemon = "slipwayd"

// Standalone starts the platform as one daemon and returns when it is ready. Close
// it, also when a test fails.
func Standalone(ctx context.Context, o Options) (*Stack, error) {
	s, err := newStack(o)
	if err != nil {
		return nil, err
	}
	args := []string{
		"--data-dir", s.dataDir(),
		"--listen", s.door(s.ports.API),
		"--edge-http", s.door(s.ports.EdgeHTTP),
		"--edge-https", s.door(s.ports.EdgeHTTPS),
		"--registry", local(s.ports.Registry),
		"--base-domain", s.BaseDomain,
		"--ops-listen", local(s.ports.Ops),
		"--subscriptions-listen", local(s.ports.Subscriptions),
	}
	args = slices.Concat(args, s.rolloutFlags(), s.capacityFlags("--node-"), s.limitFlags(), s.webhookFlags(), s.domainFlags())
	replicas := max(1, o.NATSReplicas)
	switch {
	case o.NATSServers > 0:
		if err := s.startNATSCluster(ctx, o.NATSServers); err != nil {
			return nil, errors.Join(err, s.Close(ctx))
		}
		replicas = o.NATSServers
	case o.NATS != "":
		s.NATS, s.NATSKeys = o.NATS, o.NATSKeys
	}
	if o.NATS == "" && o.NATSServers == 0 {
		s.NATSKeys = filepath.Join(s.dataDir(), "nats", "keys")
		args = append(args, "--nats", local(s.ports.NATS))
	} else {
		args = append(args, "--nats", s.NATS, "--nats-key", s.key(natsconn.RolePlatform), "--nats-replicas", strconv.Itoa(replicas))
		args = append(args, s.leafFlags()...)
	}
	if _, err := s.run(command{name: Daemon, binary: filepath.Join(s.bin, Daemon), args: args}); err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	if err := s.WaitReady(ctx); err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	s.nodes, err = findNodes(s.dataDir())
	if err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	return s, nil
}

// door is an address for the public: every one of the machine's, when that is asked for.
func (s *Stack) door(port int) string {
	if s.options.Open {
		return ":" + strconv.Itoa(port)
	}
	return local(port)
}

func findNodes(dir string) ([]*Node, error) {
	agents, err := agentDirs(dir)
	if err != nil {
		return nil, err
	}
	nodes := make([]*Node, 0, len(agents))
	for _, agent := range agents {
		nodes = append(nodes, &Node{ID: filepath.Base(agent), Dir: agent})
	}
	return nodes, nil
}
