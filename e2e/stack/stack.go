// Package stack starts the real platform, as one daemon or as one process for each
// service, with its own data and ports, and takes everything away again: processes,
// containers, network namespaces, mounts and files.
package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/slipway-paas/slipway/e2e/appimage"
	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/e2e/podman"
)

const (
	// startTimeout covers making a database and a first pull of nothing.
	startTimeout = 90 * time.Second
	stopTimeout  = 40 * time.Second
)

// Options of a stack. The zero value is a platform of its own in a temporary
// directory.
type Options struct {
	// Bin is where the platform's binaries are: SLIPWAY_BIN or the repository's bin
	// directory, built when missing, when empty.
	Bin string
	// Dir keeps the data from one run to the next. When empty it is a temporary one,
	// and Close removes it with every container.
	Dir string
	// Below puts the data deeper into Dir.
	Below string
	// BaseDomain is apps.localhost when empty.
	BaseDomain string
	// Rollout changes the deadlines of rollouts: see Quick. The keys are those of the
	// scheduler's configuration under rollout.
	Rollout map[string]string
	// RateLimits are requests a minute, by the gateway's settings under rate-limits;
	// where they say nothing there is room for every test and benchmark.
	RateLimits map[string]string
	// Resolver is host:port of the DNS server that custom domains are looked up with; the
	// machine's when empty.
	Resolver string
	// NodeMemoryMB and NodeCPUMillicores are what each node offers to apps; the
	// machine decides when 0.
	NodeMemoryMB      int
	NodeCPUMillicores int
	// Inside lets webhooks go to http:// URLs, and to these networks (CIDR) although they
	// are not public.
	Inside []string
	// Env is added to every process, as NAME=value.
	Env []string
	// Ports fixes the addresses; free ones are chosen when nil.
	Ports *Ports
	// Open has the API and the edge of a standalone platform listen on every address of
	// the machine, as they do where the public reaches them.
	Open bool
	// NATS makes a standalone platform use servers of the test's own instead of the
	// embedded one: nats://host:port, several with commas.
	NATS string
	// NATSKeys is the directory with the roles' keys, and NATSReplicas how many servers
	// keep each stream; with NATS only.
	NATSKeys     string
	NATSReplicas int
	// NATSServers makes a standalone platform use a cluster of that many servers of the
	// stack's own; see NATSServerName.
	NATSServers int
	// Screen gets the processes' output, besides the log files.
	Screen io.Writer
}

// Ports are those a platform listens on, on the loopback address.
type Ports struct {
	API, EdgeHTTP, EdgeHTTPS, Registry, NATS int
	// Ops is where metrics are.
	Ops int
	// Subscriptions is where NATS clients outside connect.
	Subscriptions int
}

// Stack is a running platform.
type Stack struct {
	// API, Edge and EdgeTLS are base addresses, e.g. http://127.0.0.1:8080.
	API, Edge, EdgeTLS string
	// Ops is the base address of the metrics.
	Ops string
	// Registry is the built-in registry's host:port.
	Registry string
	// NATS is nats://host:port, NATSKeys the directory with the roles' key files.
	NATS, NATSKeys string
	// Subscriptions is where NATS clients outside connect, nats://host:port.
	Subscriptions string
	BaseDomain    string
	// Dir holds the data and, under logs, each process's output.
	Dir string
	// Database is where PostgreSQL is, postgres://…; of platforms in several processes.
	Database string
	// Token is the first operator's.
	Token      string
	OperatorID string

	options   Options
	bin       string
	temporary bool
	kept      bool
	ports     Ports
	// reserved holds the locks on ours, the ports that were chosen.
	reserved *os.File
	ours     map[int]bool
	images   appimage.Builder
	// leaves are where leaf nodes join NATS servers of the stack's own.
	leaves []string

	mu sync.Mutex
	// processes are in the order they were started.
	processes []*Process
	commands  map[string]command
	nodes     []*Node
}

// Node is one node-agent's Podman.
type Node struct {
	ID string
	// Dir holds its Podman's socket, configuration and storage.
	Dir string
}

// Socket is where the node's Podman service listens.
func (n *Node) Socket() string { return filepath.Join(n.Dir, "podman.sock") }

// Podman is a client of the node's Podman service.
func (n *Node) Podman() *podman.Client { return podman.Dial(n.Socket()) }

func newStack(o Options) (*Stack, error) {
	bin, err := Binaries(o.Bin)
	if err != nil {
		return nil, err
	}
	s := &Stack{options: o, bin: bin, BaseDomain: o.BaseDomain, commands: map[string]command{}, ours: map[int]bool{}}
	if s.BaseDomain == "" {
		s.BaseDomain = "apps.localhost"
	}
	if o.Ports != nil {
		s.ports = *o.Ports
	} else {
		p, err := s.freePorts(7)
		if err != nil {
			return nil, err
		}
		s.ports = Ports{API: p[0], EdgeHTTP: p[1], EdgeHTTPS: p[2], Registry: p[3], NATS: p[4], Ops: p[5], Subscriptions: p[6]}
	}
	s.API = "http://" + local(s.ports.API)
	s.Edge = "http://" + local(s.ports.EdgeHTTP)
	s.EdgeTLS = "https://" + local(s.ports.EdgeHTTPS)
	s.Ops = "http://" + local(s.ports.Ops)
	s.Registry = local(s.ports.Registry)
	s.NATS = "nats://" + local(s.ports.NATS)
	s.Subscriptions = "nats://" + local(s.ports.Subscriptions)
	s.Dir = o.Dir
	if s.Dir == "" {
		s.temporary = true
		if s.Dir, err = makeTemporary(bin); err != nil {
			return nil, err
		}
	}
	if s.Dir, err = filepath.Abs(s.Dir); err != nil {
		return nil, fmt.Errorf("find the data directory: %w", err)
	}
	if err := os.MkdirAll(s.dataDir(), 0o755); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	return s, nil
}

func (s *Stack) dataDir() string { return filepath.Join(s.Dir, s.options.Below, "data") }

// MasterKey is the file with the master keys.
func (s *Stack) MasterKey() string { return filepath.Join(s.dataDir(), "master.key") }

func (s *Stack) logDir() string { return filepath.Join(s.Dir, "logs") }

// Quick are deadlines for tests: what never gets well is given up soon.
func Quick() map[string]string {
	return map[string]string{
		"healthy-timeout": "15s", "stop-timeout": "30s", "drain": "1s", "grace": "3s",
	}
}

// rolloutFlags are the flags of the one who decides about rollouts.
func (s *Stack) rolloutFlags() []string {
	var flags []string
	for _, key := range slices.Sorted(maps.Keys(s.options.Rollout)) {
		flags = append(flags, "--rollout-"+key, s.options.Rollout[key])
	}
	return flags
}

// webhookFlags are the flags of the one who tells endpoints.
func (s *Stack) webhookFlags() []string {
	if len(s.options.Inside) == 0 {
		return nil
	}
	return []string{"--webhooks-allow-http", "--webhooks-allow-networks", strings.Join(s.options.Inside, ",")}
}

// domainFlags are the flags of the one who looks custom domains up.
func (s *Stack) domainFlags() []string {
	if s.options.Resolver == "" {
		return nil
	}
	return []string{"--resolver", s.options.Resolver}
}

// limitFlags are the flags of the one who limits requests. Limits are on, so that what
// they cost is measured too.
func (s *Stack) limitFlags() []string {
	limits := map[string]string{"reads": ample, "writes": ample, "sign-ins": ample}
	maps.Copy(limits, s.options.RateLimits)
	var flags []string
	for _, key := range slices.Sorted(maps.Keys(limits)) {
		flags = append(flags, "--rate-limits-"+key, limits[key])
	}
	return flags
}

// ample is more than one machine is asked in a minute.
const ample = "100000000"

func (s *Stack) run(c command) (*Process, error) {
	c.logDir, c.screen = s.logDir(), s.options.Screen
	if c.dir == "" {
		c.dir = s.Dir
	}
	c.env = append(append([]string(nil), s.options.Env...), c.env...)
	p, err := c.start()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commands[c.name] = c
	for i, old := range s.processes {
		if old.Name == c.name {
			s.processes[i] = p
			return p, nil
		}
	}
	s.processes = append(s.processes, p)
	return p, nil
}

// Process returns the process with that name, e.g. slipwayd; nil when there is none.
func (s *Stack) Process(name string) *Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.processes {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// Restart starts a process that has ended with what it was started with before.
func (s *Stack) Restart(name string) error {
	s.mu.Lock()
	c, ok := s.commands[name]
	s.mu.Unlock()
	if !ok {
		return fmt.Errorf("no process %s was ever started", name)
	}
	_, err := s.run(c)
	return err
}

// Processes are the running processes, in the order they were started.
func (s *Stack) Processes() []*Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Process(nil), s.processes...)
}

// Nodes are the platform's nodes, the first one's first.
func (s *Stack) Nodes() []*Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Node(nil), s.nodes...)
}

// Client calls the API as the first operator.
func (s *Stack) Client() *client.Client { return &client.Client{API: s.API, Token: s.Token} }

// Host is the host name of a subdomain.
func (s *Stack) Host(subdomain string) string { return subdomain + "." + s.BaseDomain }

// Image is the reference of an image in the built-in registry.
func (s *Stack) Image(nameAndTag string) string { return s.Registry + "/" + nameAndTag }

// Push pushes the scenarios' app to the built-in registry and returns its reference.
func (s *Stack) Push(ctx context.Context, nameAndTag, version string, env ...string) (string, error) {
	reference := s.Image(nameAndTag)
	return reference, s.images.Push(ctx, reference, version, env...)
}

// WaitReady waits until the platform says that it is ready, and fails at once when
// one of its processes has ended.
func (s *Stack) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	probe := &client.Client{API: s.API, HTTP: &http.Client{Timeout: 5 * time.Second}}
	err := client.Poll(ctx, func(ctx context.Context) (bool, string, error) {
		for _, p := range s.Processes() {
			if err := p.Running(); err != nil {
				return false, "", err
			}
		}
		answer, err := probe.Do(ctx, http.MethodGet, "/api/v1/health", nil)
		if err != nil {
			return false, err.Error(), nil
		}
		return answer.Status == http.StatusOK, answer.String(), nil
	})
	if err != nil {
		return fmt.Errorf("the platform did not get ready: %w\n%s", err, s.Tails())
	}
	return s.readCredentials()
}

func (s *Stack) readCredentials() error {
	content, err := os.ReadFile(filepath.Join(s.dataDir(), "credentials.json"))
	if err != nil {
		return fmt.Errorf("read the first operator's credentials: %w", err)
	}
	var credentials struct {
		OperatorID  string `json:"operator_id"`
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(content, &credentials); err != nil {
		return fmt.Errorf("read the first operator's credentials: %w", err)
	}
	s.Token, s.OperatorID = credentials.AccessToken, credentials.OperatorID
	return nil
}

// Tails returns the last lines of every process.
func (s *Stack) Tails() string {
	var b strings.Builder
	for _, p := range s.Processes() {
		b.WriteString(p.Tail())
		b.WriteByte('\n')
	}
	return b.String()
}

// Stop asks every process to end, the last started first. The data, and what nodes
// leave running, stay.
func (s *Stack) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	var failures []error
	processes := s.Processes()
	for i := len(processes) - 1; i >= 0; i-- {
		failures = append(failures, processes[i].Stop(ctx))
	}
	return errors.Join(failures...)
}

// Close stops everything and, when the data was temporary, removes it with every
// container and namespace. It does all it can and returns what went wrong.
func (s *Stack) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*stopTimeout)
	defer cancel()
	failure := errors.Join(s.Stop(ctx), s.releasePorts())
	switch {
	case !s.temporary:
		return failure
	case s.kept:
		return errors.Join(failure, strip(ctx, s.bin, s.Dir), os.Remove(filepath.Join(s.Dir, ownerFile)))
	}
	return errors.Join(failure, sweep(ctx, s.bin, s.Dir))
}

// Keep has Close leave the files of a temporary directory to be looked at, logs and
// data. Nobody sweeps them.
func (s *Stack) Keep() { s.kept = true }

// Local rewrites a text that names the default addresses and data directory, as the
// README does, to those of this platform.
func (s *Stack) Local(text string) string {
	return strings.NewReplacer(
		"127.0.0.1:8080", local(s.ports.API), "localhost:8080", local(s.ports.API),
		"127.0.0.1:8000", local(s.ports.EdgeHTTP), "localhost:8000", "localhost:"+strconv.Itoa(s.ports.EdgeHTTP),
		"127.0.0.1:8443", local(s.ports.EdgeHTTPS), "localhost:8443", "localhost:"+strconv.Itoa(s.ports.EdgeHTTPS),
		"127.0.0.1:5055", s.Registry, "localhost:5055", s.Registry,
		"$PWD/.slipway/", s.dataDir()+"/", ".slipway/", s.dataDir()+"/",
		"bin/slipway", filepath.Join(s.bin, "slipway"),
	).Replace(text)
}

// Binary is the path of one of the platform's programs.
func (s *Stack) Binary(name string) string { return filepath.Join(s.bin, name) }
