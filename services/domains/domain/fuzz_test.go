package domain_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/eventstore/fuzzlog"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/domains/domain"
)

// FuzzEveryLogIsADomain: whatever is in a log, each command is refused or answered by an
// event that the log can hold, and what is found twice is noted once.
func FuzzEveryLogIsADomain(f *testing.F) {
	schema, err := fuzzlog.Of(domainv1.File_slipway_domain_v1_events_proto, subjects.Of("acme", subjects.Domain, "d"))
	if err != nil {
		f.Fatal(err)
	}
	for _, story := range [][]proto.Message{
		{added()}, {added(), verified(), certified()}, {added(), missed(domain.NotFound, nil), &domainv1.DomainCheckRequested{}},
		{added(), verified(), &domainv1.DomainLost{}, verified()}, {verified(), added(), added(), &domainv1.DomainRemoved{}},
	} {
		data, err := schema.Bytes(story...)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, "not_found", "because")
	}
	f.Fuzz(func(t *testing.T, data []byte, code, reason string) {
		var state domain.State
		sequence, now := uint64(0), fuzzlog.Start()
		for _, rec := range schema.Log(data) {
			state, sequence, now = domain.Evolve(state, rec), rec.Sequence, rec.Time
		}
		for _, c := range []domain.Command{
			domain.Found{Method: domain.ByTXT}, domain.Missed{Code: code, Reason: reason, Next: now.Add(time.Hour)}, domain.Missed{Code: code, Reason: reason},
			domain.Certified{Issuer: code, NotAfter: now}, domain.Uncertified{Reason: reason}, domain.Check{}, domain.Remove{},
		} {
			event, err := domain.Decide(state, c, now)
			if err != nil || event == nil {
				continue
			}
			if _, err := proto.Marshal(event); err != nil {
				t.Fatalf("%T gives what cannot be written: %v", c, err)
			}
			after := domain.Evolve(state, eventstore.Recorded{Sequence: sequence + 1, Event: eventstore.Event{Payload: event, Time: now, Aggregate: subjects.Of("acme", subjects.Domain, "d")}})
			if again, err := domain.Decide(after, c, now); again != nil && err == nil && code != "" && reason != "" {
				t.Fatalf("%T is noted again: %v, then %v", c, event, again)
			}
		}
		if next := domain.NextCheck(state, now, 72*time.Hour); !next.IsZero() && !next.After(now) {
			t.Fatalf("looked at next %s, it is %s", next, now)
		}
	})
}
