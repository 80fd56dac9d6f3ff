// Package nodeagent makes one node run what it must: it compares the containers that
// are there with what VIEW_desired says, acts on the difference, and records what it
// saw as facts. It decides nothing about deployments.
//
// It is level-triggered: every change (of a wish, a container, a deadline) only says
// which instance to look at again; what is done follows from what is seen then. So
// agent, Podman and NATS may end and come back in any order.
package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/protobuf/types/known/timestamppb"

	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// Service is the agent of one node.
type Service struct {
	cfg     Config
	deps    Deps
	metrics *metrics
	facts   *factQueue
	images  *imageKeeper

	makeSlots chan struct{}
	pullSlots chan struct{}

	mu        sync.Mutex
	instances map[string]*instance
	listed    bool          // the containers that are there are known
	firstList chan struct{} // closed when they are, in this run
	wished    bool          // so is what is desired
	known     bool          // a heartbeat was taken
	hangs     error         // why the runtime is taken not to answer
	stopping  bool          // StopApps has begun
	stopped   map[string]bool
	run       context.Context // of Run; workers live in it
	workers   sync.WaitGroup
}

// New makes the agent; it does nothing until Run.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	if err := deps.validate(); err != nil {
		return nil, err
	}
	if deps.Tracer == nil {
		deps.Tracer = noop.NewTracerProvider().Tracer("node-agent")
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the node-agent's data directory: %w", err)
	}
	stopped, err := readStopped(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	images, err := openImageKeeper(cfg.DataDir, cfg.PruneAfter)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(deps.Metrics)
	if err != nil {
		return nil, fmt.Errorf("register the node-agent's metrics: %w", err)
	}
	lanes := factLanes
	if deps.Turn != nil {
		lanes = 1
	}
	return &Service{
		cfg: cfg, deps: deps, metrics: m, images: images, stopped: stopped,
		facts:     newFactQueue(deps.Facts, lanes, deps.Log, m),
		makeSlots: make(chan struct{}, cfg.Concurrency), pullSlots: make(chan struct{}, cfg.Concurrency),
		instances: map[string]*instance{},
	}, nil
}

// Run reconciles until ctx ends and then returns nil; containers run on. It fails
// only when the wishes cannot be watched at all.
func (s *Service) Run(ctx context.Context) error {
	info, err := s.waitForRuntime(ctx)
	if err != nil {
		return nil //nolint:nilerr // only the end of ctx ends the wait
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	s.run, s.firstList = ctx, make(chan struct{})
	s.stopping, s.listed, s.wished, s.known, s.hangs = false, false, false, false, nil
	s.mu.Unlock()

	var parts sync.WaitGroup
	for _, part := range []func(context.Context){
		s.facts.run, s.followRuntime, s.resyncNowAndThen, s.feelPulse,
		func(ctx context.Context) { s.beat(ctx, s.node(info.Host, info.MemoryBytes, info.CPUMillicores)) },
	} {
		parts.Go(func() { part(ctx) })
	}
	err = s.deps.Desired.Watch(ctx, subjects.DesiredOfNode(s.cfg.NodeID), s.wish, s.wishesKnown)
	ended := ctx.Err() != nil
	cancel()
	s.stopTimers()
	s.workers.Wait()
	parts.Wait()
	s.facts.flush()
	if err != nil && !ended {
		return fmt.Errorf("watch what this node must run: %w", err)
	}
	return nil
}

// Ready is nil when the node's containers and wishes are known and reconciled, and the
// runtime answered within the last half minute.
func (s *Service) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.listed:
		return errors.New("the container runtime has not answered yet")
	case s.hangs != nil:
		return s.hangs
	case !s.wished:
		return errors.New("what this node must run is not known yet")
	case !s.known:
		return errors.New("the platform does not know of this node yet")
	}
	return nil
}

// beat says that the node lives, once its containers are known.
func (s *Service) beat(ctx context.Context, node *nodev1.Node) {
	select {
	case <-ctx.Done():
		return
	case <-s.firstList:
	}
	ticker := time.NewTicker(s.cfg.Heartbeat)
	defer ticker.Stop()
	for {
		node.SeenAt = timestamppb.Now()
		_, err := s.deps.Nodes.Put(ctx, s.cfg.NodeID, node)
		if err != nil && ctx.Err() == nil {
			s.deps.Log.WarnContext(ctx, "the heartbeat was not taken", "error", err)
		}
		s.mu.Lock()
		s.known = s.known || err == nil
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (s *Service) node(host string, memoryBytes, cpuMillicores int64) *nodev1.Node {
	n := &nodev1.Node{
		NodeId: s.cfg.NodeID, Host: s.cfg.Host, Version: s.cfg.Version,
		MemoryMb: s.cfg.MemoryMB, CpuMillicores: s.cfg.CPUMillicores,
	}
	if n.Host == "" {
		n.Host = host
	}
	if n.MemoryMb == 0 {
		n.MemoryMb = uint32(max(memoryBytes>>20-int64(s.cfg.ReserveMB), 0))
	}
	if n.CpuMillicores == 0 {
		n.CpuMillicores = uint32(cpuMillicores)
	}
	return n
}
