package scheduler

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
)

// destroyAgain is how long a deployment that could not be destroyed waits.
const destroyAgain = time.Second

// orgDeletions are the events that end an organization.
const orgDeletions = "OrgDeleted"

// closedOrgs are the organizations that were deleted: what they have deployed is
// destroyed, whenever it was asked for.
type closedOrgs struct {
	mu   sync.RWMutex
	ids  map[string]bool
	kick chan struct{}
}

func newClosedOrgs() *closedOrgs {
	return &closedOrgs{ids: map[string]bool{}, kick: make(chan struct{}, 1)}
}

// apply takes an event of an organization's.
func (c *closedOrgs) apply(e eventstore.Recorded) {
	if _, deleted := e.Payload.(*identityv1.OrgDeleted); !deleted || e.Aggregate.ID != e.Aggregate.Org {
		return
	}
	c.mu.Lock()
	c.ids[e.Aggregate.ID] = true
	c.mu.Unlock()
	c.look()
}

// look has what deleted organizations deployed looked for again.
func (c *closedOrgs) look() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

func (c *closedOrgs) has(org string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.ids[org]
}

// destroyClosed asks for the destruction of what deleted organizations have deployed,
// until ctx ends.
func (s *Service) destroyClosed(ctx context.Context) error {
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.closed.kick:
		case <-again.C:
		}
		if !s.destroyLeft(ctx) {
			again.Reset(destroyAgain)
		}
	}
}

// destroyLeft reports whether everything is asked for.
func (s *Service) destroyLeft(ctx context.Context) bool {
	var left []deployment.State
	s.fleet.Each(func(d deployment.State) {
		if d.Status != deployment.Destroyed && d.Intent != deployment.IntentDestroy && s.closed.has(d.Org) {
			left = append(left, d)
		}
	})
	done := true
	for _, d := range left {
		_, err := s.handler.Handle(ctx, decider.Command[deployment.Command]{
			Aggregate: subjects.Of(d.Org, subjects.Deployment, d.ID), Command: deployment.Destroy{},
			ID: uuid.NewSHA1(uuid.NameSpaceOID, []byte("org-deleted-"+d.ID)).String(), Actor: "system",
		})
		if err != nil && ctx.Err() == nil {
			done = false
			s.deps.Log.WarnContext(ctx, "a deleted organization's deployment is still there; trying again", "deployment", d.ID, "error", err)
		}
	}
	return done
}
