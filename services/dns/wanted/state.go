// Package wanted says which records there shall be, folded from the log, and what is to
// be done for it. It is pure.
package wanted

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	dnsv1 "github.com/slipway-paas/slipway/gen/slipway/dns/v1"
	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/dns/tunnel"
)

// Codes of failures, stable.
const (
	Taken        = "taken"
	NotAllowed   = "not_allowed"
	Refused      = "refused"
	Unauthorized = "unauthorized"
	Unavailable  = "unavailable"
)

// Domain is a custom domain that is not removed.
type Domain struct {
	Org, ID, Name, Target string
	// ProofNeeded: nothing is done for it before it is verified.
	ProofNeeded, Verified bool
	// Since is the sequence of its first event.
	Since uint64
}

// Known is what the log says of one record.
type Known struct {
	Record *dnsv1.Record
	// Applied, or else failed for that code and reason.
	Applied      bool
	Code, Reason string
	// Gone: it was removed; nothing but the sequence is kept of it.
	Gone bool
	// Sequence is that of the last event.
	Sequence uint64
}

// State is all that the log says of records. It is not for concurrent use.
type State struct {
	domains map[subjects.Aggregate]Domain
	tunnels map[string]tunnel.State
	records map[subjects.Aggregate]Known
}

// NewState knows nothing yet.
func NewState() *State {
	return &State{domains: map[subjects.Aggregate]Domain{}, tunnels: map[string]tunnel.State{}, records: map[subjects.Aggregate]Known{}}
}

// Filters are the events that Apply is for.
func Filters() []string {
	return []string{
		subjects.KindFilter(subjects.Domain), subjects.OrgFilter(subjects.Platform, subjects.Tunnel), subjects.KindFilter(subjects.DNSRecord),
	}
}

// Apply folds one event in and reports whether something else may be wanted now.
func (s *State) Apply(rec eventstore.Recorded) bool {
	switch rec.Aggregate.Kind {
	case subjects.Domain:
		return s.domain(rec)
	case subjects.Tunnel:
		t := tunnel.Evolve(s.tunnels[rec.Aggregate.ID], rec)
		if t.Live() {
			s.tunnels[rec.Aggregate.ID] = t
		} else {
			delete(s.tunnels, rec.Aggregate.ID)
		}
		return true
	case subjects.DNSRecord:
		s.Note(rec.Aggregate, rec)
	}
	return false
}

func (s *State) domain(rec eventstore.Recorded) bool {
	a := rec.Aggregate
	d, known := s.domains[a]
	switch e := rec.Payload.(type) {
	case *domainv1.DomainAdded:
		if known {
			return false
		}
		s.domains[a] = Domain{
			Org: a.Org, ID: a.ID, Name: strings.ToLower(e.GetName()), Target: strings.ToLower(e.GetTarget()),
			ProofNeeded: e.GetProofNeeded(), Since: rec.Sequence,
		}
	case *domainv1.DomainVerified:
		if !known || d.Verified {
			return false
		}
		d.Verified = true
		s.domains[a] = d
	case *domainv1.DomainLost, *domainv1.DomainRemoved:
		delete(s.domains, a)
	default:
		// Checks and certificates change nothing about records.
		return false
	}
	return true
}

// Note takes in what became of a record.
func (s *State) Note(a subjects.Aggregate, rec eventstore.Recorded) {
	known := s.records[a]
	if rec.Sequence <= known.Sequence {
		return
	}
	switch e := rec.Payload.(type) {
	case *dnsv1.RecordApplied:
		known = Known{Record: e.GetRecord(), Applied: true}
	case *dnsv1.RecordFailed:
		known = Known{Record: e.GetRecord(), Code: e.GetCode(), Reason: e.GetReason()}
	case *dnsv1.RecordRemoved:
		known = Known{Gone: true}
	default:
		return
	}
	known.Sequence = rec.Sequence
	s.records[a] = known
}

// Known is what the log says of a record.
func (s *State) Known(a subjects.Aggregate) Known { return s.records[a] }

// Standing are the records that are applied or failed, with whose they are.
func (s *State) Standing() map[subjects.Aggregate]Known {
	standing := map[subjects.Aggregate]Known{}
	for a, k := range s.records {
		if !k.Gone {
			standing[a] = k
		}
	}
	return standing
}

// Tunnels are those that are not deleted, by name.
func (s *State) Tunnels() []tunnel.State {
	var all []tunnel.State
	for _, name := range slices.Sorted(maps.Keys(s.tunnels)) {
		all = append(all, s.tunnels[name])
	}
	return all
}

// Tunnel is the one of that name; see tunnel.State.Live.
func (s *State) Tunnel(name string) tunnel.State { return s.tunnels[name] }

// Verified reports whether the name is a custom domain that is its app's for sure.
func (s *State) Verified(name string) bool {
	for _, d := range s.domains {
		if d.Name == name && d.Verified {
			return true
		}
	}
	return false
}

// Aggregate is what the record's events are of: the same record of the same org always.
func (w Want) Aggregate() subjects.Aggregate {
	sum := sha256.Sum256([]byte(strings.Join([]string{w.Zone, w.Name, w.Type, w.Content, w.DomainID}, "\x00")))
	return subjects.Of(w.Org, subjects.DNSRecord, hex.EncodeToString(sum[:16]))
}

// Event is the record as events say it.
func (w Want) Event() *dnsv1.Record {
	return &dnsv1.Record{
		Zone: w.Zone, Name: w.Name, Type: w.Type, Content: w.Content, Ttl: uint32(max(0, w.TTL)),
		Proxied: w.Proxied, DomainId: w.DomainID,
	}
}
