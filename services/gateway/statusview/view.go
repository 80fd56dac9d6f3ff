package statusview

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// patience bounds how long Get waits for the caller's own write to arrive.
const patience = 2 * time.Second

// ErrBehind is returned by Get when the deployment's last known write has not
// arrived within two seconds: ask its owner instead.
var ErrBehind = errors.New("the status view is behind the log")

// Status is one deployment as it was at one moment. It is never changed.
type Status struct {
	ID, OrgID, OperatorID string
	Status                string
	Subdomain             string
	HealthStatus          string
	// LastHealthCheck is zero before the first probe.
	LastHealthCheck time.Time
	// JSON is the answer to a status poll.
	JSON []byte
}

// View is every deployment's Status, about 1 kB each, destroyed ones too.
type View struct {
	store    eventstore.Store
	entries  sync.Map // deployment id -> *entry
	caughtUp atomic.Bool
}

type entry struct {
	status atomic.Pointer[Status]
	// applied is the last event folded in, wanted the last one known to be written.
	applied, wanted atomic.Uint64

	mu      sync.Mutex
	state   State
	checked time.Time
	moved   chan struct{} // closed at the next event; nil when nobody waits
}

// New makes an empty view; Run fills it.
func New(store eventstore.Store) *View { return &View{store: store} }

// Run follows the log until ctx ends and then returns nil.
func (v *View) Run(ctx context.Context) error {
	handle := func(_ context.Context, events []eventstore.Recorded) error {
		for _, e := range events {
			if err := v.entry(e.Aggregate.ID).apply(e); err != nil {
				return err
			}
		}
		return nil
	}
	ready := func() { v.caughtUp.Store(true) }
	if err := v.store.Follow(ctx, 0, handle, ready, subjects.KindFilter(subjects.Deployment)); err != nil {
		return fmt.Errorf("follow the deployments' events: %w", err)
	}
	return nil
}

// Ready is nil once the view holds all that was in the log at start.
func (v *View) Ready() error {
	if !v.caughtUp.Load() {
		return errors.New("the status view is still reading the log")
	}
	return nil
}

// Wrote tells the view of a write: a Get after it sees it. Call it with the
// sequence that the write's owner answered.
func (v *View) Wrote(id string, sequence uint64) {
	if sequence == 0 {
		return
	}
	e := v.entry(id)
	for {
		wanted := e.wanted.Load()
		if sequence <= wanted || e.wanted.CompareAndSwap(wanted, sequence) {
			return
		}
	}
}

// Probed notes when one of the deployment's instances was last probed.
func (v *View) Probed(id string, at time.Time) error {
	found, ok := v.entries.Load(id)
	if !ok {
		// Probes of what the log has not told yet: the next one will find it.
		return nil
	}
	return found.(*entry).probed(at)
}

// Get returns the deployment's status, or nil when the view knows of none. When
// Wrote was called with a later sequence than the view has reached, it waits for
// it, at most two seconds, and then returns ErrBehind.
func (v *View) Get(ctx context.Context, id string) (*Status, error) {
	found, ok := v.entries.Load(id)
	if !ok {
		return nil, nil
	}
	e := found.(*entry)
	if e.applied.Load() < e.wanted.Load() {
		if err := e.wait(ctx); err != nil {
			return nil, err
		}
	}
	return e.status.Load(), nil
}

// LastCheck is when the deployment was last probed, as far as the view knows; zero
// for never. It does not wait.
func (v *View) LastCheck(id string) time.Time {
	if found, ok := v.entries.Load(id); ok {
		if status := found.(*entry).status.Load(); status != nil {
			return status.LastHealthCheck
		}
	}
	return time.Time{}
}

func (v *View) entry(id string) *entry {
	if found, ok := v.entries.Load(id); ok {
		return found.(*entry)
	}
	made, _ := v.entries.LoadOrStore(id, &entry{})
	return made.(*entry)
}

func (e *entry) apply(rec eventstore.Recorded) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.state = Evolve(e.state, rec.Payload)
	if e.state.CheckedAt.After(e.checked) {
		e.checked = e.state.CheckedAt
	}
	if err := e.render(); err != nil {
		return err
	}
	e.applied.Store(rec.Sequence)
	if e.moved != nil {
		close(e.moved)
		e.moved = nil
	}
	return nil
}

func (e *entry) probed(at time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !at.After(e.checked) {
		return nil
	}
	e.checked = at
	return e.render()
}

func (e *entry) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, ErrBehind)
	defer cancel()
	for {
		e.mu.Lock()
		if e.applied.Load() >= e.wanted.Load() {
			e.mu.Unlock()
			return nil
		}
		if e.moved == nil {
			e.moved = make(chan struct{})
		}
		moved := e.moved
		e.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// render publishes the state; the caller holds mu.
func (e *entry) render() error {
	if e.state.ID == "" {
		return nil
	}
	s := &Status{
		ID: e.state.ID, OrgID: e.state.OrgID, OperatorID: e.state.OperatorID, Status: e.state.Status,
		Subdomain: e.state.Subdomain, HealthStatus: e.state.Health(), LastHealthCheck: e.checked,
	}
	body := struct {
		ID              string     `json:"id"`
		Status          string     `json:"status"`
		Subdomain       string     `json:"subdomain"`
		HealthStatus    string     `json:"health_status"`
		LastHealthCheck *time.Time `json:"last_health_check"`
	}{ID: s.ID, Status: s.Status, Subdomain: s.Subdomain, HealthStatus: s.HealthStatus}
	if !s.LastHealthCheck.IsZero() {
		at := s.LastHealthCheck.UTC().Truncate(time.Millisecond)
		body.LastHealthCheck = &at
	}
	rendered, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("render the status of deployment %s: %w", s.ID, err)
	}
	s.JSON = rendered
	e.status.Store(s)
	return nil
}
