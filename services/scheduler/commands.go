package scheduler

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/google/uuid"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/claims"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/observe"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/rpc"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
	"github.com/slipway-paas/slipway/services/scheduler/rollout"
)

// cachedDeployments is how many folded deployments are kept for commands.
const cachedDeployments = 4096

// readOnlyRetry is when to ask again for what a full disk refused.
const readOnlyRetry = 10 * time.Second

type handler = decider.Handler[deployment.State, deployment.Command]

// newHandler runs operators' commands against the log, with the claims that go
// with them.
func newHandler(store eventstore.Store, n names, now func() time.Time) *handler {
	return decider.NewHandler(store, decider.Decider[deployment.State, deployment.Command]{
		Initial: func() deployment.State { return deployment.State{} },
		Decide:  deployment.Decide,
		Evolve:  deployment.Evolve,
	}, decider.Options[deployment.State]{
		Source: "scheduler", Now: now, With: n.With, CacheSize: cachedDeployments,
		NewID: func() string { return uuid.Must(uuid.NewV7()).String() },
	})
}

// wellFormed reports whether an id is written as those we give: as a UUID, but not in
// braces, as a URN or in capitals, which are forms of the same that name no stream.
func wellFormed(id string) bool {
	parsed, err := uuid.Parse(id)
	return err == nil && parsed.String() == id
}

// errNotFound is for ids that are nobody's.
func errNotFound() error {
	return problem.NotFound("Deployment not found: there is none with this id.")
}

func errForeign() error { return problem.Forbidden("This deployment belongs to another operator.") }

// find returns the deployment's state as the log has it now, for its organization only.
func (s *Service) find(ctx context.Context, p *identityv1.Principal, id string) (deployment.State, error) {
	if !wellFormed(id) {
		return deployment.State{}, errNotFound()
	}
	if other, known := s.fleet.Get(id); known && other.Org != p.OrgId {
		return deployment.State{}, errForeign()
	}
	state, _, err := s.handler.Load(ctx, subjects.Of(p.OrgId, subjects.Deployment, id))
	switch {
	case err != nil:
		return deployment.State{}, fmt.Errorf("loading deployment %s: %w", id, err)
	case !state.Exists():
		return deployment.State{}, errNotFound()
	}
	return state, nil
}

// command carries out a command of the deployment's organization and returns the state after it.
func (s *Service) command(ctx context.Context, p *identityv1.Principal, id string, c deployment.Command) (deployment.State, error) {
	if _, err := s.find(ctx, p, id); err != nil {
		return deployment.State{}, err
	}
	return s.handle(ctx, p, id, c)
}

func (s *Service) handle(ctx context.Context, p *identityv1.Principal, id string, c deployment.Command) (deployment.State, error) {
	commandID := rpc.CommandID(ctx)
	result, err := s.handler.Handle(ctx, decider.Command[deployment.Command]{
		Aggregate: subjects.Of(p.OrgId, subjects.Deployment, id), Command: c, ID: commandID, Again: commandID != "",
		Actor: p.AppId, TraceParent: observe.TraceParent(ctx),
	})
	if taken := (*claims.TakenError)(nil); errors.As(err, &taken) {
		return deployment.State{}, problem.Validation(takenFields(taken))
	}
	switch {
	case errors.Is(err, eventstore.ErrReadOnly):
		return deployment.State{}, readOnly(err)
	case errors.Is(err, eventstore.ErrConflict):
		return deployment.State{}, problem.Conflict("Others are changing this deployment at the same time; try again.")
	case errors.Is(err, eventstore.ErrUnavailable):
		return deployment.State{}, problem.Unavailable("The event log is not answering; whether the command was taken is not known. Look at the deployment, then try again.", time.Second)
	case err != nil:
		return deployment.State{}, fmt.Errorf("%T on deployment %s: %w", c, id, err)
	}
	s.deps.Log.InfoContext(ctx, "command taken", "command", rollout.CommandName(c), "deployment", id, "sequence", result.Sequence)
	if _, created := c.(deployment.Create); created && result.Event != nil {
		// Known at once, not when the log comes back: the next create counts it.
		s.fleet.Apply(*result.Event)
	}
	return result.State, nil
}

// readOnly tells people what to do about a log that takes no writes. An earlier try of
// the same command may have been the one that failed, so it is not said that nothing
// was done.
func readOnly(err error) error {
	why := "its disk cannot be written"
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		why = "its disk is full"
	}
	return problem.Unavailable("The event log takes no writes, because "+why+". Reads and running apps go on; commands do again soon after the operator has mended it. Look at the deployment, then try again.", readOnlyRetry)
}

func takenFields(e *claims.TakenError) []problem.Field {
	var fields []problem.Field
	for _, n := range e.Names {
		fields = append(fields, problem.Field{Field: n.Kind, Message: fmt.Sprintf("%q is taken; choose another", n.Value)})
	}
	return fields
}
