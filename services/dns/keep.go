package dns

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/slipway-paas/slipway/services/dns/wanted"
	"github.com/slipway-paas/slipway/services/dns/zone"
)

const (
	// firstRetry and lastRetry bound the waits while the provider is away, for however long.
	firstRetry = 500 * time.Millisecond
	lastRetry  = 2 * time.Minute
	// hurried is how soon a change has us try again while the provider is away.
	hurried = 5 * time.Second
	// gather is how long changes are waited for that come together.
	gather = 50 * time.Millisecond
	// challengeKept is after how long a challenge's record is what a crash left.
	challengeKept = time.Hour
	// unseenTries is how often a record may be taken by one that cannot be seen before
	// that is said: a read may be behind.
	unseenTries = 5
	// mostFailures bounds those that the status tells of.
	mostFailures = 100
)

const noToken = "There is no Cloudflare token, so that no zone is held; give one with --cloudflare-token-file."

// standing is how things were when they were last looked at.
type standing struct {
	trouble                          string
	zones                            []string
	wanted, applied, failed, tunnels int
	failures                         []failure
	comparedAt                       time.Time
}

type failure struct {
	wanted.Want
	code, reason string
}

// rounds is what keep remembers from one round to the next.
type rounds struct {
	// clean are the zones that hold what was wanted then, by a sum of that.
	clean map[string][sha256.Size]byte
	wrote map[string]time.Time
	// unseen counts how often a record was taken by nothing that can be seen.
	unseen map[string]int
	// missing counts how often a tunnel that was there could not be seen.
	missing map[string]int
	// ruled says which rules each tunnel was given.
	ruled map[string]string
	// compared is when all that is in the zones was last read.
	compared time.Time
}

func newRounds() rounds {
	return rounds{clean: map[string][sha256.Size]byte{}, wrote: map[string]time.Time{}, unseen: map[string]int{}, missing: map[string]int{}, ruled: map[string]string{}}
}

// keep makes the zones what they shall be, whenever that changes and every while, until
// ctx ends. Nothing is kept of what failed: the next round finds it again.
func (s *Service) keep(ctx context.Context) error {
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval, waits.MaxInterval = firstRetry, lastRetry
	timer := time.NewTimer(0)
	defer timer.Stop()
	// While the provider is away, changes hurry us only a little.
	var ended, due time.Time
	patient := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-s.wake:
			if soonest := ended.Add(hurried); patient && !s.waitedFor() && time.Now().Before(soonest) {
				if soonest.Before(due) {
					due = soonest
					timer.Reset(time.Until(due))
				}
				continue
			}
			if pause(ctx, gather) != nil {
				return nil
			}
		}
		waiting := s.takeWaiting()
		again, err := s.round(ctx, len(waiting) > 0)
		for _, w := range waiting {
			close(w)
		}
		if ctx.Err() != nil {
			return nil
		}
		patient, ended = err != nil, time.Now()
		var wait time.Duration
		switch {
		case err != nil:
			wait = waits.NextBackOff()
			s.deps.Log.WarnContext(ctx, "the zones are not what they shall be; tried again", "error", err, "after", wait.Round(time.Millisecond))
		case again:
			waits.Reset()
			wait = max(s.config.Settle, gather)
		default:
			waits.Reset()
			wait = max(gather, s.config.CompareEvery-time.Since(s.rounds.compared))
		}
		due = ended.Add(wait)
		timer.Reset(wait)
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// compare asks for a whole comparison and waits for its end, bounded by ctx.
func (s *Service) compare(ctx context.Context) {
	done := make(chan struct{})
	s.mu.Lock()
	s.waiting = append(s.waiting, done)
	s.mu.Unlock()
	s.rouse()
	select {
	case <-ctx.Done():
	case <-done:
	}
}

func (s *Service) waitedFor() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting) > 0
}

func (s *Service) takeWaiting() []chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.waiting
	s.waiting = nil
	return taken
}

// round makes all zones what they shall be, and looks at all of them when that is asked
// for or due. again says that what was done is to be looked at once more. An error is for
// trying again, later and later.
func (s *Service) round(ctx context.Context, whole bool) (again bool, err error) {
	began := s.deps.Now()
	whole = whole || time.Since(s.rounds.compared) >= s.config.CompareEvery
	defer func() { s.tell(began, whole && err == nil, err) }()
	zones, err := s.held(ctx, whole)
	if err != nil {
		return false, err
	}
	apexes := make([]string, len(zones))
	held := map[string]bool{}
	for i, z := range zones {
		apexes[i], held[z.Name()] = z.Name(), true
	}
	again, err = s.keepTunnels(ctx, apexes, whole)
	troubles := []error{err}
	s.mu.Lock()
	wants := s.state.Records(apexes, s.policy)
	s.mu.Unlock()
	of := map[string][]wanted.Want{}
	for _, w := range wants {
		if w.Refusal == "" {
			of[w.Zone] = append(of[w.Zone], w)
			continue
		}
		troubles = append(troubles, s.failed(ctx, w, wanted.NotAllowed, w.Refusal))
	}
	looked := map[string]bool{}
	for _, z := range zones {
		sum := sumOf(of[z.Name()])
		if clean, ok := s.rounds.clean[z.Name()]; ok && clean == sum && !whole {
			looked[z.Name()] = true
			continue
		}
		delete(s.rounds.clean, z.Name())
		k := keeper{Service: s, zone: z, wants: of[z.Name()]}
		if err := k.keep(ctx); err != nil {
			troubles = append(troubles, fmt.Errorf("zone %s: %w", z.Name(), err))
			continue
		}
		looked[z.Name()] = true
		// What was read may have been from before what was written.
		if k.wrote || k.unsure || time.Since(s.rounds.wrote[z.Name()]) < s.config.Settle {
			again = true
		} else {
			s.rounds.clean[z.Name()] = sum
		}
	}
	troubles = append(troubles, s.removed(ctx, wants, looked, held))
	if err := errors.Join(troubles...); err != nil {
		return again, err
	}
	if whole {
		s.rounds.compared = time.Now()
	}
	left, err := s.dropTunnels(ctx)
	return again || left, err
}

func sumOf(wants []wanted.Want) [sha256.Size]byte {
	var text strings.Builder
	for _, w := range wants {
		fmt.Fprintf(&text, "%s %s %s %d %v %s %s\n", w.Name, w.Type, w.Content, w.TTL, w.Proxied, w.Org, w.DomainID)
	}
	return sha256.Sum256([]byte(text.String()))
}

// held are the zones; those read before unless all are to be looked at.
func (s *Service) held(ctx context.Context, anew bool) ([]zone.Zone, error) {
	s.mu.Lock()
	known, p := s.zones, s.provider
	s.mu.Unlock()
	if len(known) > 0 && !anew {
		return known, nil
	}
	zones, err := p.Zones(ctx)
	if err != nil {
		if len(known) > 0 {
			// Whoever waits for a record in a zone that is known is told why.
			return known, nil
		}
		return nil, err
	}
	slices.SortFunc(zones, func(a, b zone.Zone) int { return strings.Compare(a.Name(), b.Name()) })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zones = zones
	return zones, nil
}

// tell keeps how things stand now, for the status and the figures.
func (s *Service) tell(began time.Time, whole bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := standing{comparedAt: s.standing.comparedAt, trouble: ""}
	if whole {
		st.comparedAt = began
	}
	if err != nil {
		st.trouble = err.Error()
	}
	for _, z := range s.zones {
		st.zones = append(st.zones, z.Name())
	}
	for _, t := range s.state.Tunnels() {
		if t.Wanted() {
			st.tunnels++
		}
	}
	for _, w := range s.state.Records(st.zones, s.policy) {
		st.wanted++
		switch k := s.state.Known(w.Aggregate()); {
		case k.Applied && w.Refusal == "":
			st.applied++
		case k.Code != "":
			st.failed++
			if len(st.failures) < mostFailures {
				st.failures = append(st.failures, failure{w, k.Code, k.Reason})
			}
		}
	}
	s.standing = st
	s.figures.show(st)
}

// keeper makes one zone what it shall be.
type keeper struct {
	*Service
	zone  zone.Zone
	wants []wanted.Want
	// wrote: something was changed. unsure: something is to be looked at again.
	wrote, unsure bool
}

func (k *keeper) keep(ctx context.Context) error {
	ours, err := k.zone.Ours(ctx)
	if err != nil {
		return k.away(ctx, k.wants, err)
	}
	plan := wanted.Compare(k.wants, ours)
	for _, r := range ours {
		if r.Challenge && r.Ours && k.deps.Now().Sub(r.CreatedAt) > challengeKept {
			plan.Delete = append(plan.Delete, r)
		}
	}
	for _, w := range plan.Kept {
		if err := k.applied(ctx, w); err != nil {
			return err
		}
	}
	for _, r := range plan.Delete {
		err := k.zone.Delete(ctx, r)
		k.write(err)
		if zone.Retryable(err) {
			return k.away(ctx, k.wants, err)
		}
		if err != nil {
			k.deps.Log.ErrorContext(ctx, "a record of ours cannot be removed", "zone", k.zone.Name(), "name", r.Name, "type", r.Type, "error", err)
			return err
		}
	}
	for _, c := range plan.Update {
		if err := k.outcome(ctx, c.Want, k.zone.Update(ctx, c.To)); err != nil {
			return err
		}
	}
	for i, w := range plan.Create {
		if err := k.create(ctx, w); err != nil {
			return errors.Join(err, k.waitFor(ctx, plan.Create[i+1:], err))
		}
	}
	return nil
}

// write notes that a call may have changed the zone.
func (k *keeper) write(err error) {
	if err == nil || errors.Is(err, zone.ErrUnavailable) {
		k.wrote = true
		k.rounds.wrote[k.zone.Name()] = time.Now()
	}
}

// create makes a record where nobody else's is.
func (k *keeper) create(ctx context.Context, w wanted.Want) error {
	named, err := k.zone.Named(ctx, w.Name)
	if err != nil {
		return k.away(ctx, []wanted.Want{w}, err)
	}
	for _, r := range named {
		switch {
		case !r.Ours && slices.Contains([]string{zone.A, zone.AAAA, zone.CNAME, "NS"}, r.Type):
			return k.failed(ctx, w, wanted.Taken, fmt.Sprintf("%s has a record in the zone that somebody else made (%s); it is left alone until they remove it", w.Name, r.Type))
		case r.Ours && r.Type == w.Type && r.Content == w.Content:
			k.unsure = true // only just seen
			return nil
		}
	}
	_, err = k.zone.Create(ctx, w.Record)
	return k.outcome(ctx, w, err)
}

// outcome tells what became of writing a record. An error ends the round.
func (k *keeper) outcome(ctx context.Context, w wanted.Want, err error) error {
	k.write(err)
	unseen := w.Aggregate().ID
	if !errors.Is(err, zone.ErrTaken) {
		delete(k.rounds.unseen, unseen)
	}
	switch {
	case err == nil:
		return k.applied(ctx, w)
	case errors.Is(err, zone.ErrGone):
		k.unsure = true
		return nil
	case errors.Is(err, zone.ErrTaken):
		// By what cannot be seen yet: perhaps by this very record, made by a call whose
		// answer was lost.
		if k.rounds.unseen[unseen]++; k.rounds.unseen[unseen] < unseenTries {
			k.unsure = true
			return nil
		}
		return k.failed(ctx, w, wanted.Taken, err.Error())
	case zone.Retryable(err):
		return k.away(ctx, []wanted.Want{w}, err)
	}
	return k.failed(ctx, w, code(err), err.Error())
}

// away tells those who wait that the provider does not do it now, and returns why.
func (k *keeper) away(ctx context.Context, wants []wanted.Want, err error) error {
	return errors.Join(err, k.waitFor(ctx, wants, err))
}

func (k *keeper) waitFor(ctx context.Context, wants []wanted.Want, cause error) error {
	if ctx.Err() != nil || !zone.Retryable(cause) {
		return nil
	}
	var errs []error
	for _, w := range wants {
		errs = append(errs, k.failed(ctx, w, code(cause), cause.Error()))
	}
	return errors.Join(errs...)
}
