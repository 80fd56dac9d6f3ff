package domains

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/slipway-paas/slipway/libs/claims"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/domains/domain"
	"github.com/slipway-paas/slipway/services/domains/proof"
	"github.com/slipway-paas/slipway/services/domains/resolver"
)

const (
	// atOnce bounds the looks under way.
	atOnce = 8
	// lookTimeout bounds one look, with all its questions.
	lookTimeout = 8 * time.Second
	// strayRecheck is how soon a verified domain that did not lead here is looked at
	// again, strayAfter how long it must not before that is said.
	strayRecheck = 10 * time.Minute
	strayAfter   = time.Hour
	// retryLook is after a look that could not be written down.
	retryLook = 5 * time.Second
	idle      = time.Minute
)

// look looks at the domains that are due, until ctx ends.
func (s *Service) look(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	slots := make(chan struct{}, atOnce)
	for {
		now := s.now()
		due, next := s.plan.take(now, atOnce-len(slots))
		for _, a := range due {
			slots <- struct{}{}
			running.Go(func() {
				defer func() { <-slots; s.plan.poke() }()
				if _, err := s.lookAt(ctx, a); err != nil && ctx.Err() == nil {
					s.figures.failures.Inc()
					s.deps.Log.WarnContext(ctx, "could not look at a domain, trying again", "domain", a.ID, "error", err)
				}
			})
		}
		wait := idle
		if !next.IsZero() {
			wait = min(max(next.Sub(now), time.Millisecond), idle)
		}
		if len(slots) == atOnce {
			wait = idle // one that ends wakes us
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-s.plan.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// lookAt looks at one domain now, once for all who ask at the same time, and returns
// what was seen.
func (s *Service) lookAt(ctx context.Context, a subjects.Aggregate) (seen, error) {
	result, err, _ := s.looks.Do(a.ID, func() (any, error) {
		ctx, cancel := context.WithTimeout(ctx, lookTimeout)
		defer cancel()
		seen, err := s.judge(ctx, a)
		if err != nil && !errors.Is(err, domain.ErrUnknown) {
			seen.next = s.now().Add(retryLook)
		}
		s.plan.done(a, seen.next)
		return seen, err
	})
	out, _ := result.(seen)
	return out, err
}

// seen is what came of a look: what the domain is now, what DNS says of it, and when it
// is looked at next.
type seen struct {
	state   domain.State
	verdict proof.Verdict
	next    time.Time
}

// judge looks, and writes down what is new.
func (s *Service) judge(ctx context.Context, a subjects.Aggregate) (seen, error) {
	state, _, err := s.handler.Load(ctx, a)
	if err != nil || !state.Live() || state.Status == domain.Failed {
		return seen{state: state}, err
	}
	attempt := s.plan.looked(a)
	verdict, err := s.verdict(ctx, state)
	if err != nil {
		return seen{state: state}, err
	}
	s.figures.looked(verdict)
	if verdict.Method != "" {
		found, err := s.handle(ctx, a, domain.Found{Method: verdict.Method}, asked{})
		if taken := (*claims.TakenError)(nil); errors.As(err, &taken) {
			// Another org was faster: the next look knows.
			return seen{state: state, next: s.now().Add(retryLook)}, nil
		}
		if err != nil {
			return seen{state: state}, err
		}
		s.plan.strays(a, false, s.now())
		if found.Event != nil {
			s.deps.Log.InfoContext(ctx, "a domain is verified", "domain", a.ID, "name", state.Name, "method", verdict.Method)
		}
		return seen{found.State, verdict, domain.Recheck(found.State, s.now(), s.config.Recheck)}, nil
	}
	return s.missed(ctx, a, state, verdict, attempt)
}

// missed writes down why a domain is not good. One that is verified has time to come back.
func (s *Service) missed(ctx context.Context, a subjects.Aggregate, state domain.State, v proof.Verdict, attempt uint32) (seen, error) {
	now := s.now()
	next := domain.NextCheck(state, now, s.config.GiveUp)
	if state.Served() {
		next = domain.Recheck(state, now, min(strayRecheck, s.config.Recheck))
		if v.Code == domain.DNSUnavailable || now.Sub(s.plan.strays(a, true, now)) < strayAfter {
			return seen{state, v, next}, nil
		}
	}
	result, err := s.handle(ctx, a, domain.Missed{Code: v.Code, Reason: v.Reason, Attempt: attempt, Next: next}, asked{})
	if err != nil {
		return seen{state: state}, err
	}
	return seen{result.State, v, next}, nil
}

// verdict asks DNS what it takes for this domain to be believed. Errors: those of the log.
func (s *Service) verdict(ctx context.Context, state domain.State) (proof.Verdict, error) {
	claim, err := s.claims.Load(ctx, owned(state.Name))
	if err != nil {
		return proof.Verdict{}, err
	}
	if !state.Served() && claim.Holder == legacyHolder(state.DeploymentID) {
		// It was served before domains were proved, and goes on.
		return proof.Verdict{Method: domain.ByClaim}, nil
	}
	if (claim.Holder == "" || claim.Holder == holder(state.ID)) && s.known.Recorded(state.Org, state.ID) {
		return proof.Verdict{Method: domain.ByRecord}, nil
	}
	wanted := proof.Wanted{
		Name: state.Name, Target: state.Target, Base: s.config.BaseDomain, Edge: s.config.EdgeName,
		Addresses: s.config.addresses(), Proof: state.Proof, Need: s.need(state, claim.Holder),
	}
	answers, err := s.deps.Resolver.Look(ctx, wanted)
	if errors.Is(err, resolver.ErrUnavailable) {
		s.deps.Log.DebugContext(ctx, "DNS does not answer", "name", state.Name, "error", err)
		return proof.Verdict{Code: domain.DNSUnavailable, Reason: fmt.Sprintf("the DNS servers of %s do not answer; it is looked at again", state.Name)}, nil
	}
	if err != nil {
		return proof.Verdict{}, fmt.Errorf("look up %s: %w", state.Name, err)
	}
	return proof.Judge(wanted, answers), nil
}

// need is what it takes: more when others have the name, or want it.
func (s *Service) need(state domain.State, owner string) proof.Need {
	if owner == holder(state.ID) {
		return proof.Lead
	}
	if owner != "" {
		return proof.Proof
	}
	for _, other := range s.known.Named(state.Name) {
		if other.Org != state.Org {
			return proof.Sure
		}
	}
	return proof.Lead
}
