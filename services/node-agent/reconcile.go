package nodeagent

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v5"

	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/libs/view"
	"github.com/slipway-paas/slipway/services/node-agent/runtime"
)

// instance is what the agent knows of one instance. Service.mu guards it, but for
// memory, which belongs to the one worker that looks at the instance.
type instance struct {
	id        string
	want      *nodev1.DesiredInstance // nil: no wish
	container string                  // id; empty: none known
	// running is the container as it was last seen to run; nil when something may have
	// happened to it since. happened counts what was heard of it.
	running  *runtime.Container
	happened int

	dirty     bool // look again
	busy      bool // a worker looks
	timer     *time.Timer
	interrupt context.CancelFunc // ends the worker's pull when it is no longer wanted
	failures  int                // looks in a row that ended in an error

	memory memory
}

// wish takes one change of what is desired.
func (s *Service) wish(_ context.Context, c view.Change[*nodev1.DesiredInstance]) error {
	id := instanceOfKey(c.Key)
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.instances[id]
	if i == nil {
		if c.Deleted {
			return nil
		}
		i = s.addInstance(id)
	}
	if c.Deleted {
		i.want = nil
	} else {
		i.want = c.Value
	}
	if i.interrupt != nil && i.want.GetDesiredState() != nodev1.DesiredState_DESIRED_STATE_RUNNING {
		i.interrupt()
	}
	s.poke(i)
	return nil
}

// instanceOfKey is the part of <node>.<instance> after the node.
func instanceOfKey(key string) string {
	for i := range key {
		if key[i] == '.' {
			return key[i+1:]
		}
	}
	return key
}

func (s *Service) wishesKnown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wished = true
	s.pokeAll()
}

// The following need s.mu.

func (s *Service) addInstance(id string) *instance {
	i := &instance{id: id}
	s.instances[id] = i
	s.metrics.managed.Set(float64(len(s.instances)))
	return i
}

func (s *Service) forget(i *instance) {
	if i.timer != nil {
		i.timer.Stop()
	}
	delete(s.instances, i.id)
	s.metrics.managed.Set(float64(len(s.instances)))
}

func (s *Service) pokeAll() {
	for _, i := range s.instances {
		s.poke(i)
	}
}

// poke has the instance looked at, by the worker that already does or by a new one.
// Nothing is done before both sides of the comparison are known.
func (s *Service) poke(i *instance) {
	if !s.listed || !s.wished || s.run == nil || s.run.Err() != nil {
		return
	}
	i.dirty = true
	if i.busy {
		return
	}
	i.busy = true
	ctx := s.run
	s.workers.Go(func() { s.work(ctx, i) })
}

// unsure has the instance's container inspected when it is looked at next.
func (i *instance) unsure() {
	i.running = nil
	i.happened++
}

// The preceding need s.mu.

const (
	errorPauseFirst = 200 * time.Millisecond
	errorPauseMost  = 30 * time.Second
)

// work looks at an instance until there is nothing new to see.
func (s *Service) work(ctx context.Context, i *instance) {
	for s.stillDirty(ctx, i) {
		if s.deps.Turn != nil {
			s.deps.Turn(ctx, i.id)
		}
		s.mu.Lock()
		i.dirty = false
		if i.timer != nil {
			i.timer.Stop()
			i.timer = nil
		}
		s.mu.Unlock()

		again, err := s.look(ctx, i)

		s.mu.Lock()
		switch {
		case err == nil:
			i.failures = 0
		case ctx.Err() == nil && !errors.Is(err, context.Canceled):
			i.failures++
			i.unsure()
			again = min(errorPauseFirst<<min(i.failures-1, 10), errorPauseMost)
			s.metrics.errors.Inc()
			s.deps.Log.WarnContext(ctx, "looking again at an instance", "instance", i.id, "error", err, "in", again)
		}
		if again > 0 && ctx.Err() == nil {
			i.timer = time.AfterFunc(again, func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				if s.instances[i.id] == i {
					s.poke(i)
				}
			})
		}
		s.mu.Unlock()
	}
}

// stillDirty ends the worker when there is nothing to look at.
func (s *Service) stillDirty(ctx context.Context, i *instance) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i.busy = i.dirty && ctx.Err() == nil
	return i.busy
}

func (s *Service) stopTimers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.instances {
		if i.timer != nil {
			i.timer.Stop()
		}
	}
}

// waitForRuntime returns when the runtime answers; its error is ctx's.
func (s *Service) waitForRuntime(ctx context.Context) (runtime.Info, error) {
	pause := newPause()
	for {
		info, err := s.deps.Runtime.Info(ctx)
		if err == nil {
			return info, nil
		}
		wait := pause.NextBackOff()
		s.deps.Log.WarnContext(ctx, "the container runtime does not answer", "error", err, "again_in", wait)
		select {
		case <-ctx.Done():
			return runtime.Info{}, ctx.Err()
		case <-time.After(wait):
		}
	}
}

func newPause() *backoff.ExponentialBackOff {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 100*time.Millisecond, 10*time.Second
	return pause
}

// followRuntime listens to what happens to containers; after each gap it lists.
func (s *Service) followRuntime(ctx context.Context) {
	pause := newPause()
	for ctx.Err() == nil {
		events, err := s.deps.Runtime.Events(ctx)
		if err == nil {
			err = s.list(ctx)
		}
		if err == nil {
			pause.Reset()
			for e := range events {
				s.happened(e)
			}
			err = errors.New("the stream ended")
		}
		if ctx.Err() != nil {
			return
		}
		wait := pause.NextBackOff()
		s.deps.Log.WarnContext(ctx, "lost the container runtime's events; asking again", "error", err, "in", wait)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

func (s *Service) happened(e runtime.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A start is our own doing.
	if i := s.instances[e.Labels[runtime.LabelInstance]]; i != nil && e.Type != runtime.EventStarted {
		i.unsure()
		s.poke(i)
	}
}

func (s *Service) resyncNowAndThen(ctx context.Context) {
	ticker := time.NewTicker(s.cfg.Resync)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := s.list(ctx); err != nil && ctx.Err() == nil {
			s.deps.Log.WarnContext(ctx, "the containers could not be listed", "error", err)
		}
	}
}

// list learns which containers there are and has those instances looked at whose
// container is not as wanted.
func (s *Service) list(ctx context.Context) error {
	list, err := s.deps.Runtime.List(ctx)
	if err != nil {
		return err
	}
	present := map[string]runtime.Container{}
	for _, c := range list {
		id := c.Labels[runtime.LabelInstance]
		if !subjects.ValidToken(id) {
			s.deps.Log.WarnContext(ctx, "a container has our owner label but is no instance; it is left alone", "container", c.ID)
			continue
		}
		other, twice := present[id]
		if twice && attemptOf(other) > attemptOf(c) {
			c, other = other, c
		}
		present[id] = c
		if twice {
			s.removeExtra(ctx, other.ID)
		}
	}
	s.mu.Lock()
	for id, c := range present {
		i := s.instances[id]
		if i == nil {
			i = s.addInstance(id)
		}
		// A container that is known already may be newer than this list.
		if i.container == "" {
			i.container = c.ID
		}
	}
	first := !s.listed
	if first {
		s.listed = true
		close(s.firstList)
	}
	for id, i := range s.instances {
		c, there := present[id]
		asWanted := !there
		if i.want.GetDesiredState() == nodev1.DesiredState_DESIRED_STATE_RUNNING {
			asWanted = c.State == runtime.StateRunning
		}
		// One that does not run is to go too when nobody wants it: it may have been made
		// without our hearing of it.
		if first || !asWanted || c.ID != i.container {
			i.unsure()
			s.poke(i)
		}
	}
	s.mu.Unlock()
	s.prune(ctx, list)
	return nil
}

func (s *Service) removeExtra(ctx context.Context, container string) {
	if err := s.deps.Runtime.Remove(ctx, container); err != nil {
		s.deps.Log.WarnContext(ctx, "an instance has a second container that could not be removed", "container", container, "error", err)
	}
}

func attemptOf(c runtime.Container) int { return number(c.Labels[runtime.LabelAttempt]) }

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}
