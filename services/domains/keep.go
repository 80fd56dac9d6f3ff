package domains

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/slipway-paas/slipway/libs/claims"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/domains/directory"
	"github.com/slipway-paas/slipway/services/domains/domain"
)

// keepRetry is after something could not be written.
const keepRetry = 2 * time.Second

// unkept are the apps whose domains may not be what they are to be: the one that it was
// asked for with to be added, or all of them to be removed. They follow from the log.
type unkept struct {
	mu   sync.Mutex
	apps map[string]bool
	wake chan struct{}
}

func newUnkept() *unkept { return &unkept{apps: map[string]bool{}, wake: make(chan struct{}, 1)} }

func (u *unkept) add(apps ...string) {
	if len(apps) == 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, id := range apps {
		u.apps[id] = true
	}
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

func (u *unkept) take() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []string
	for id := range u.apps {
		out = append(out, id)
	}
	clear(u.apps)
	slices.Sort(out)
	return out
}

// keep does what apps that came or went need, until ctx ends. It begins with all that
// the log has of them.
func (s *Service) keep(ctx context.Context) error {
	for {
		var again []string
		for _, id := range s.unkept.take() {
			if err := s.keepApp(ctx, id); err != nil && ctx.Err() == nil {
				s.figures.failures.Inc()
				s.deps.Log.WarnContext(ctx, "the domains of an app are not what they are to be, trying again", "deployment", id, "error", err)
				again = append(again, id)
			}
		}
		var retry <-chan time.Time
		if len(again) > 0 {
			retry = time.After(keepRetry)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.unkept.wake:
		case <-retry:
		}
		s.unkept.add(again...)
	}
}

func (s *Service) keepApp(ctx context.Context, id string) error {
	app, known := s.known.App(id)
	switch {
	case !known:
		return nil
	case app.Gone:
		return s.removeAll(ctx, app)
	case app.Asked == "":
		return nil
	}
	if _, done := s.known.Known(askedID(id)); done {
		return nil
	}
	return s.addAsked(ctx, app)
}

// askedID is the id of the domain that a deployment was asked for with.
func askedID(deployment string) string {
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte(deployment+"/"+claims.CustomDomain)).String()
}

// addAsked adds the domain that a deployment was asked for with, as its primary one.
func (s *Service) addAsked(ctx context.Context, app directory.App) error {
	name, faults := s.config.rules().Parse(app.Asked)
	if len(faults) > 0 {
		s.deps.Log.WarnContext(ctx, "a deployment was asked for with a domain that it cannot have", "deployment", app.ID, "faults", faults)
		return nil
	}
	owner, err := s.claims.Load(ctx, owned(name))
	if err != nil {
		return err
	}
	id := askedID(app.ID)
	_, err = s.handle(ctx, subjects.Of(app.Org, subjects.Domain, id), domain.Add{
		ID: id, Org: app.Org, DeploymentID: app.ID, Name: name, Target: app.Host, Proof: newProof(),
		ProofNeeded: owner.Holder != "" && owner.Holder != legacyHolder(app.ID), Primary: true, By: app.Actor,
	}, asked{command: uuid.NewSHA1(uuid.NameSpaceURL, []byte(id)).String(), actor: app.Actor, causation: app.Event})
	switch taken := (*claims.TakenError)(nil); {
	case errors.As(err, &taken):
		// Added to another app of the org since the request was checked.
		s.deps.Log.WarnContext(ctx, "another app of the organization has the domain that a deployment was asked for with", "deployment", app.ID, "name", name)
		return nil
	case errors.Is(err, domain.ErrExists):
		return nil
	case err != nil:
		return fmt.Errorf("add %s: %w", name, err)
	}
	return nil
}

// newProof is what a TXT record is to hold: nobody else can know it before.
func newProof() string { return "slipway-verify=" + rand.Text() }

// removeAll removes the domains of an app that is destroyed.
func (s *Service) removeAll(ctx context.Context, app directory.App) error {
	for _, of := range s.known.Of(app.ID) {
		_, err := s.handle(ctx, subjects.Of(of.Org, subjects.Domain, of.ID), domain.Remove{Reason: "the app was destroyed"}, asked{causation: app.Event})
		if err != nil && !errors.Is(err, domain.ErrUnknown) {
			return fmt.Errorf("remove %s: %w", of.Name, err)
		}
	}
	return nil
}
