package identity

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	claimv1 "github.com/slipway-paas/slipway/gen/slipway/claim/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/access"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/identity/operator"
	"github.com/slipway-paas/slipway/services/identity/org"
)

// closingTries bounds deciding again because an organization changed meanwhile.
const closingTries = 5

// DeleteOrg implements identityv1.OrgServiceServer. The scheduler destroys what the
// organization has deployed when it learns of it.
func (s orgs) DeleteOrg(ctx context.Context, in *identityv1.DeleteOrgRequest) (*identityv1.DeleteOrgResponse, error) {
	p, before, err := s.within(ctx, in.GetOrgId(), access.RoleOwner)
	if err != nil {
		return nil, err
	}
	if in.GetConfirm() != before.Name {
		return nil, problem.Validation([]problem.Field{{Field: "confirm", Message: "must be the organization's name, " + before.Name}})
	}
	if _, err := s.changeOrg(ctx, before.ID, p.GetOperatorId(), org.Delete{By: p.GetOperatorId()}); err != nil {
		return nil, s.answer(ctx, "delete an organization", err)
	}
	s.deps.Log.InfoContext(ctx, "an organization was deleted", "org", before.ID, "by", p.GetOperatorId())
	return &identityv1.DeleteOrgResponse{Message: "Deleted, with all that it had deployed", Id: before.ID}, nil
}

// DeleteAccount implements identityv1.AccountServiceServer.
func (s accounts) DeleteAccount(ctx context.Context, in *identityv1.DeleteAccountRequest) (*identityv1.DeleteAccountResponse, error) {
	_, state, err := s.account(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.deleteAccount(ctx, state, in); err != nil {
		return nil, s.answer(ctx, "delete an account", err)
	}
	s.deps.Log.InfoContext(ctx, "an account was deleted", "operator", state.ID)
	return &identityv1.DeleteAccountResponse{Message: "Deleted; what was known of you cannot be read any more"}, nil
}

func (s *Service) deleteAccount(ctx context.Context, state operator.State, in *identityv1.DeleteAccountRequest) error {
	if err := s.confirm(ctx, state, in.GetPassword(), "password"); err != nil {
		return err
	}
	if state.Totp.Confirmed {
		if strings.TrimSpace(in.GetCode()) == "" {
			return problem.Validation([]problem.Field{{Field: "code", Message: "is needed: the account has a second factor"}})
		}
		after, err := s.spendCode(ctx, state, in.GetCode())
		if wrong := new(problem.Error); errors.Is(err, operator.ErrCode) || errors.As(err, &wrong) && wrong.Status == http.StatusUnauthorized {
			return problem.Validation([]problem.Field{{Field: "code", Message: "is wrong, or was used already"}})
		}
		if err != nil {
			return err
		}
		state = after
	}
	for range closingTries {
		batch, err := s.closing(ctx, state.ID)
		if err != nil {
			return err
		}
		sequence, err := s.deps.Store.AppendBatch(ctx, batch)
		if errors.Is(err, eventstore.ErrConflict) {
			continue
		}
		if err != nil {
			return fmt.Errorf("write the end of an account to the log: %w", err)
		}
		return s.seen(ctx, sequence)
	}
	return eventstore.ErrConflict
}

// closing is all that ends with an account, to be written all or none: its memberships,
// the organizations that it alone is in, its address, itself.
func (s *Service) closing(ctx context.Context, id string) ([]eventstore.Expected, error) {
	home := s.known.home(id)
	state, sequence, err := s.operators.Load(ctx, home)
	if err != nil {
		return nil, fmt.Errorf("look at an account: %w", err)
	}
	var batch []eventstore.Expected
	var alone []string
	for _, of := range s.known.orgsOf(id) {
		a := orgAggregate(of.ID)
		organization, last, err := s.orgs.Load(ctx, a)
		if err != nil {
			return nil, fmt.Errorf("look at an organization: %w", err)
		}
		if _, member := organization.Members[id]; !member {
			continue
		}
		var c org.Command = org.Remove{By: id, ID: id}
		switch {
		case len(organization.Members) == 1:
			c = org.Delete{By: id, WithAccount: true}
		case organization.OnlyOwner(id):
			alone = append(alone, organization.Name)
			continue
		}
		e, err := org.Decide(organization, c, s.deps.Now())
		if err != nil {
			return nil, fmt.Errorf("leave an organization: %w", err)
		}
		batch = append(batch, eventstore.Expected{LastSequence: last, Event: s.event(a, newID(), e)})
	}
	if len(alone) > 0 {
		slices.Sort(alone)
		return nil, problem.InvalidState("You are the only owner of " + strings.Join(alone, ", ") + ", which others are in; make somebody else an owner there, or delete it, first.")
	}
	address := emailClaim(state.EmailHash)
	held, err := s.claim(ctx, address)
	if err != nil {
		return nil, err
	}
	if held.holder == home.String() {
		batch = append(batch, eventstore.Expected{LastSequence: held.sequence, Event: s.event(address, newID(), &claimv1.ClaimReleased{
			Kind: "email", Name: hex.EncodeToString(state.EmailHash[:]), Holder: held.holder,
		})})
	}
	e, err := operator.Decide(state, operator.Delete{}, s.deps.Now())
	if errors.Is(err, operator.ErrMalformed) {
		return nil, problem.InvalidState("This operator came with the platform and goes with it.")
	}
	if err != nil {
		return nil, fmt.Errorf("delete an account: %w", err)
	}
	batch = append(batch, eventstore.Expected{LastSequence: sequence, Event: s.event(home, newID(), e)})
	for i := range batch {
		batch[i].Actor = id
	}
	return batch, nil
}

// eraser destroys the data keys of what was deleted. It is told again of everything that
// was ever deleted each time the log is read, so that none is forgotten in a crash.
type eraser struct {
	destroy func(context.Context, subjects.Aggregate) error
	failed  func(subjects.Aggregate, error)

	mu      sync.Mutex
	waiting []subjects.Aggregate
	kick    chan struct{}
}

func newEraser(destroy func(context.Context, subjects.Aggregate) error, failed func(subjects.Aggregate, error)) *eraser {
	return &eraser{destroy: destroy, failed: failed, kick: make(chan struct{}, 1)}
}

// eraseAgain is how long a key that could not be destroyed waits.
const eraseAgain = time.Second

// note takes what ends with the events.
func (e *eraser) note(events []eventstore.Recorded) {
	e.mu.Lock()
	for _, event := range events {
		switch event.Payload.(type) {
		case *identityv1.AccountDeleted, *identityv1.OrgDeleted:
			e.waiting = append(e.waiting, event.Aggregate)
		}
	}
	e.mu.Unlock()
	select {
	case e.kick <- struct{}{}:
	default:
	}
}

func (e *eraser) next() (a subjects.Aggregate, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiting) == 0 {
		return subjects.Aggregate{}, false
	}
	a, e.waiting = e.waiting[0], e.waiting[1:]
	return a, true
}

// run destroys keys until ctx ends.
func (e *eraser) run(ctx context.Context) {
	for {
		a, ok := e.next()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-e.kick:
			}
			continue
		}
		err := e.destroy(ctx, a)
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return
		}
		e.failed(a, err)
		e.mu.Lock()
		e.waiting = append(e.waiting, a)
		e.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(eraseAgain):
		}
	}
}
