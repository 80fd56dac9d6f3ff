package stack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/libs/natsconn"
)

// firstNode is the id of the node that a platform has from the start.
const firstNode = "first"

// Processes starts the platform with every service as a process of its own, over
// real gRPC, a NATS server and a private PostgreSQL, and returns when it is ready.
// Close it, also when a test fails.
func Processes(ctx context.Context, o Options) (*Stack, error) {
	s, err := newStack(o)
	if err != nil {
		return nil, err
	}
	if err := s.startProcesses(ctx); err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	return s, nil
}

func (s *Stack) startProcesses(ctx context.Context) error {
	if err := s.startNATS(ctx); err != nil {
		return err
	}
	if err := s.makeCertificates(); err != nil {
		return err
	}
	database, err := s.startPostgres(ctx)
	if err != nil {
		return err
	}
	s.Database = database
	rpc, err := s.freePorts(6)
	if err != nil {
		return err
	}
	identity, billing, scheduler, webhooks, domains, dns := local(rpc[0]), local(rpc[1]), local(rpc[2]), local(rpc[3]), local(rpc[4]), local(rpc[5])
	services := []service{
		{"registry", []string{"--listen", s.Registry, "--store-dir", filepath.Join(s.dataDir(), "registry")}},
		{"billing", []string{"--rpc-listen", billing}},
		{"identity", []string{
			"--rpc-listen", identity, "--public-url", s.API, "--subscriptions-url", s.Subscriptions,
			"--credentials-file", filepath.Join(s.dataDir(), "credentials.json"),
			"--master-key", s.MasterKey(),
		}},
		{"scheduler", append([]string{
			"--rpc-listen", scheduler, "--billing", billing, "--database-url", database, "--base-domain", s.BaseDomain,
			"--master-key", s.MasterKey(), "--allowed-registries", s.registries(),
		}, s.rolloutFlags()...)},
		{"webhooks", append([]string{"--rpc-listen", webhooks, "--master-key", s.MasterKey()}, s.webhookFlags()...)},
		{"subscriptions", append(s.leafFlags(), "--subscriptions-listen", local(s.ports.Subscriptions))},
		{"domains", append([]string{"--rpc-listen", domains, "--base-domain", s.BaseDomain}, s.domainFlags()...)},
		{"dns", []string{"--rpc-listen", dns, "--base-domain", s.BaseDomain, "--master-key", s.MasterKey()}},
		{"health", nil},
		{"proxy-config", nil},
	}
	pages, err := s.runServices(services)
	if err != nil {
		return err
	}
	edgePage, err := s.startEdge()
	if err != nil {
		return err
	}
	node, nodePage, err := s.startNode(ctx, firstNode)
	if err != nil {
		return err
	}
	s.nodes = append(s.nodes, node)
	pages = append(pages, "edge="+edgePage, "node-agent="+nodePage)
	if err := s.runService(service{"gateway", append([]string{
		"--listen", local(s.ports.API), "--identity", identity, "--billing", billing, "--scheduler", scheduler, "--webhooks", webhooks, "--domains", domains, "--dns", dns,
		"--services", strings.Join(pages, ","), "--master-key", s.MasterKey(),
	}, s.limitFlags()...)}, local(s.ports.Ops)); err != nil {
		return err
	}
	return s.WaitReady(ctx)
}

// service is one of the platform's, with the flags that are its own.
type service struct {
	name string
	args []string
}

// runServices starts services and returns their readiness pages as name=URL.
func (s *Stack) runServices(services []service) ([]string, error) {
	ops, err := s.freePorts(len(services))
	if err != nil {
		return nil, err
	}
	var pages []string
	for i, one := range services {
		if err := s.runService(one, local(ops[i])); err != nil {
			return nil, err
		}
		pages = append(pages, one.name+"="+readyPage(ops[i]))
	}
	return pages, nil
}

func readyPage(port int) string { return "http://" + local(port) + "/readyz" }

// runService runs a service with what all of them are told.
func (s *Stack) runService(one service, ops string) error {
	name := "slipway-" + one.name
	args := append([]string{"--nats", s.NATS, "--nats-key", s.key(natsconn.RolePlatform), "--ops-listen", ops}, one.args...)
	if slices.Contains(calling, one.name) {
		args = append(args, "--tls-ca", filepath.Join(s.certificates(), "ca.crt"), "--tls-identity", filepath.Join(s.certificates(), one.name+".pem"))
	}
	_, err := s.run(command{name: name, binary: filepath.Join(s.bin, name), args: args})
	return err
}

// calling are the services that call each other, or are called.
var calling = []string{"gateway", "identity", "scheduler", "billing", "webhooks", "domains", "dns"}

func (s *Stack) certificates() string { return filepath.Join(s.dataDir(), "certs") }

// makeCertificates gives each service what proves to the others who it is, as an
// operator does.
func (s *Stack) makeCertificates() error {
	command := exec.Command(filepath.Join(s.bin, Daemon), "certs", "--dir", s.certificates(), "--services", strings.Join(calling, ","), "--life", "24h")
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("make the services' certificates: %w\n%s", err, out)
	}
	return nil
}

func (s *Stack) key(role natsconn.Role) string { return filepath.Join(s.NATSKeys, string(role)+".nk") }

// startEdge starts an edge and returns its readiness page.
func (s *Stack) startEdge() (page string, err error) {
	ports, err := s.freePorts(1)
	if err != nil {
		return "", err
	}
	_, err = s.run(command{name: "slipway-edge", binary: filepath.Join(s.bin, "slipway-edge"), args: []string{
		"--nats", s.NATS, "--nats-creds", s.key(natsconn.RoleEdge),
		"--http", local(s.ports.EdgeHTTP), "--https", local(s.ports.EdgeHTTPS),
		"--data-dir", filepath.Join(s.dataDir(), "edge"), "--metrics", local(ports[0]),
	}})
	return "http://" + local(ports[0]) + "/ready", err
}

// AddNode starts one more node-agent, with its own Podman, and waits until that
// answers.
func (s *Stack) AddNode(ctx context.Context, id string) (*Node, error) {
	node, _, err := s.startNode(ctx, id)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes = append(s.nodes, node)
	return node, nil
}

// startNode returns the node, and the agent's readiness page.
func (s *Stack) startNode(ctx context.Context, id string) (node *Node, page string, err error) {
	dir := filepath.Join(s.dataDir(), nodePrefix+id)
	name := nodeAgent
	if id != firstNode {
		name += "-" + id
	}
	ops, err := s.freePorts(1)
	if err != nil {
		return nil, "", err
	}
	key, err := s.nodeKey(ctx, id)
	if err != nil {
		return nil, "", err
	}
	args := append([]string{
		"--nats", s.NATS, "--nats-key", key, "--ops-listen", local(ops[0]),
		"--node-id", id, "--data-dir", dir, "--insecure-registries", s.Registry,
	}, s.capacityFlags("--")...)
	p, err := s.run(command{name: name, binary: filepath.Join(s.bin, nodeAgent), args: args})
	if err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	node = &Node{ID: id}
	err = client.Poll(ctx, func(ctx context.Context) (bool, string, error) {
		if err := p.Running(); err != nil {
			return false, "", err
		}
		found, err := agentDirs(dir)
		if err != nil || len(found) == 0 {
			return false, "no Podman configuration yet", err
		}
		node.Dir = found[0]
		err = node.Podman().Ping(ctx)
		return err == nil, fmt.Sprint(err), nil
	})
	if err != nil {
		return nil, "", fmt.Errorf("node %s did not start: %w\n%s", id, err, p.Tail())
	}
	return node, readyPage(ops[0]), nil
}

const (
	nodeAgent = "slipway-node-agent"
	// nodePrefix begins the name of each node-agent's data directory.
	nodePrefix = "node-"
)

func (s *Stack) registries() string { return s.Registry + "/,docker.io/library/,ghcr.io/" }

// capacityFlags say what a node offers to apps; prefix begins their names.
func (s *Stack) capacityFlags(prefix string) []string {
	var flags []string
	if s.options.NodeMemoryMB > 0 {
		flags = append(flags, prefix+"memory-mb", strconv.Itoa(s.options.NodeMemoryMB))
	}
	if s.options.NodeCPUMillicores > 0 {
		flags = append(flags, prefix+"cpu-millicores", strconv.Itoa(s.options.NodeCPUMillicores))
	}
	return flags
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
