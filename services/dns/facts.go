package dns

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/proto"

	dnsv1 "github.com/slipway-paas/slipway/gen/slipway/dns/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/dns/wanted"
	"github.com/slipway-paas/slipway/services/dns/zone"
)

// code is the stable word for an error of the provider.
func code(err error) string {
	switch {
	case errors.Is(err, zone.ErrTaken), errors.Is(err, zone.ErrForeign):
		return wanted.Taken
	case errors.Is(err, zone.ErrUnauthorized):
		return wanted.Unauthorized
	case errors.Is(err, zone.ErrRefused):
		return wanted.Refused
	}
	return wanted.Unavailable
}

// applied records that the zone holds it, unless the log says so already.
func (s *Service) applied(ctx context.Context, w wanted.Want) error {
	if k := s.known(w.Aggregate()); k.Applied && proto.Equal(k.Record, w.Event()) {
		return nil
	}
	return s.note(ctx, w.Aggregate(), &dnsv1.RecordApplied{Record: w.Event()})
}

// failed records why it is not there, when that is something else than before. What was
// applied once stays so while the provider is away: nothing is known of it.
func (s *Service) failed(ctx context.Context, w wanted.Want, code, reason string) error {
	k := s.known(w.Aggregate())
	if k.Code == code || k.Applied && (code == wanted.Unavailable || code == wanted.Unauthorized) {
		return nil
	}
	s.deps.Log.WarnContext(ctx, "a record cannot be made", "zone", w.Zone, "name", w.Name, "type", w.Type, "code", code, "reason", reason)
	return s.note(ctx, w.Aggregate(), &dnsv1.RecordFailed{Record: w.Event(), Code: code, Reason: reason})
}

// removed records that what is not wanted any more is gone from the zones that were
// looked at; held says which there are at all.
func (s *Service) removed(ctx context.Context, wants []wanted.Want, looked, held map[string]bool) error {
	still := map[subjects.Aggregate]bool{}
	for _, w := range wants {
		still[w.Aggregate()] = true
	}
	s.mu.Lock()
	standing := s.state.Standing()
	s.mu.Unlock()
	var errs []error
	for a, k := range standing {
		if apex := k.Record.GetZone(); still[a] || held[apex] && !looked[apex] {
			continue
		}
		errs = append(errs, s.note(ctx, a, &dnsv1.RecordRemoved{Record: k.Record}))
	}
	return errors.Join(errs...)
}

func (s *Service) known(a subjects.Aggregate) wanted.Known {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Known(a)
}

// note records a fact about a record, once for what came before it.
func (s *Service) note(ctx context.Context, a subjects.Aggregate, fact proto.Message) error {
	e := eventstore.Event{Aggregate: a, Payload: fact, Time: s.deps.Now().UTC(), Source: source}
	e.ID = a.ID + "-" + e.Type() + "-" + strconv.FormatUint(s.known(a).Sequence, 10)
	sequence, err := s.deps.Store.Record(ctx, e)
	if err != nil {
		return fmt.Errorf("record %s: %w", e.Type(), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// Not only when it is read again, or it would be recorded twice.
	s.state.Note(a, eventstore.Recorded{Event: e, Sequence: sequence})
	return nil
}
