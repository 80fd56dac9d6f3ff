package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/slipway-paas/slipway/services/node-agent/runtime"
)

const stoppedFile = "stopped.json"

// StopApps stops this node's containers, each with its grace, and leaves them there:
// the next Run starts them again at once, because they did not end by themselves.
// Nothing is recorded, and from here on Run starts nothing. It may be called while
// Run runs or after.
func (s *Service) StopApps(ctx context.Context) error {
	s.mu.Lock()
	s.stopping = true
	graces := map[string]time.Duration{}
	for id, i := range s.instances {
		if g := i.want.GetDeadlines().GetGrace(); g != nil {
			graces[id] = g.AsDuration()
		}
	}
	s.mu.Unlock()
	list, err := s.deps.Runtime.List(ctx)
	if err != nil {
		return fmt.Errorf("list the containers to stop: %w", err)
	}
	var running []runtime.Container
	var ids []string
	s.mu.Lock()
	for _, c := range list {
		if c.State == runtime.StateRunning {
			running = append(running, c)
			ids = append(ids, c.ID)
			s.stopped[c.ID] = true
		}
	}
	s.mu.Unlock()
	// Written first: a machine that goes down meanwhile must not look like a crash.
	if err := writeList(filepath.Join(s.cfg.DataDir, stoppedFile), ids); err != nil {
		return fmt.Errorf("note which containers are stopped: %w", err)
	}
	errs := make([]error, len(running))
	slots := make(chan struct{}, 4*s.cfg.Concurrency)
	var stops sync.WaitGroup
	for n, c := range running {
		stops.Go(func() {
			leave, err := enter(ctx, slots)
			if err != nil {
				errs[n] = err
				return
			}
			defer leave()
			grace, ok := graces[c.Labels[runtime.LabelInstance]]
			if !ok {
				grace = defaultGrace
			}
			errs[n] = s.deps.Runtime.Stop(ctx, c.ID, grace)
		})
	}
	stops.Wait()
	return errors.Join(errs...)
}

func readStopped(dir string) (map[string]bool, error) {
	ids, err := readList(filepath.Join(dir, stoppedFile))
	if err != nil {
		return nil, fmt.Errorf("read which containers were stopped: %w", err)
	}
	stopped := map[string]bool{}
	for _, id := range ids {
		stopped[id] = true
	}
	return stopped, nil
}
