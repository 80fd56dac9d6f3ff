// Package claims keeps names unique across tenants: a claim is an aggregate of
// the platform's own org, taken and released in one atomic batch with the event
// that needs it.
package claims

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	claimv1 "github.com/slipway-paas/slipway/gen/slipway/claim/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// Kinds of name.
const (
	Subdomain = "subdomain"
	// CustomDomain is for the one who has proved a domain, OrgDomain for the one app of
	// an org that has it, proved or not.
	CustomDomain = "custom_domain"
	OrgDomain    = "org_domain"
)

// Name is one name of a kind.
type Name struct{ Kind, Value string }

// OrgsDomain is a domain's name within an org.
func OrgsDomain(org, name string) Name { return Name{Kind: OrgDomain, Value: org + "/" + name} }

// Aggregate is the claim on the name. Names are hashed: they may be long, and
// hold characters that subjects do not.
func (n Name) Aggregate() subjects.Aggregate {
	sum := sha256.Sum256([]byte(n.Value))
	return subjects.Of(subjects.Platform, subjects.Claim, n.Kind+"-"+hex.EncodeToString(sum[:16]))
}

// State of a claim: who holds it (empty for nobody) as of a sequence.
type State struct {
	Holder   string
	Sequence uint64
}

// Evolve folds one event of the claim.
func Evolve(s State, rec eventstore.Recorded) State {
	s.Sequence = rec.Sequence
	switch e := rec.Payload.(type) {
	case *claimv1.ClaimTaken:
		s.Holder = e.Holder
	case *claimv1.ClaimReleased:
		if s.Holder == e.Holder {
			s.Holder = ""
		}
	}
	return s
}

// TakenError is returned by Take for the names that others hold.
type TakenError struct{ Names []Name }

func (e *TakenError) Error() string { return fmt.Sprintf("taken by others: %v", e.Names) }

// Book reads claims from the log.
type Book struct {
	Store eventstore.Store
	Now   func() time.Time
	// Source is the service that takes and releases them, as events say it.
	Source string
}

// Load returns the claim on one name.
func (b Book) Load(ctx context.Context, n Name) (State, error) {
	events, err := b.Store.Load(ctx, n.Aggregate(), 0)
	if err != nil {
		return State{}, fmt.Errorf("reading the claim on %s %s: %w", n.Kind, n.Value, err)
	}
	var s State
	for _, e := range events {
		s = Evolve(s, e)
	}
	return s, nil
}

// Take returns the events that give the names to the holder. Errors: *TakenError.
func (b Book) Take(ctx context.Context, holder string, names ...Name) ([]eventstore.Expected, error) {
	taken := &TakenError{}
	var out []eventstore.Expected
	for _, n := range names {
		s, err := b.Load(ctx, n)
		if err != nil {
			return nil, err
		}
		switch s.Holder {
		case holder:
		case "":
			out = append(out, b.event(n, s, &claimv1.ClaimTaken{Kind: n.Kind, Name: n.Value, Holder: holder}))
		default:
			taken.Names = append(taken.Names, n)
		}
	}
	if len(taken.Names) > 0 {
		return nil, taken
	}
	return out, nil
}

// Move returns the event that gives a name, as it was loaded, to a holder, whoever has
// it: for names whose owner can prove that they are.
func (b Book) Move(n Name, loaded State, holder string) eventstore.Expected {
	return b.event(n, loaded, &claimv1.ClaimTaken{Kind: n.Kind, Name: n.Value, Holder: holder})
}

// Release returns the events that make the names free that the holder holds.
func (b Book) Release(ctx context.Context, holder string, names ...Name) ([]eventstore.Expected, error) {
	var out []eventstore.Expected
	for _, n := range names {
		s, err := b.Load(ctx, n)
		if err != nil {
			return nil, err
		}
		if s.Holder == holder {
			out = append(out, b.event(n, s, &claimv1.ClaimReleased{Kind: n.Kind, Name: n.Value, Holder: holder}))
		}
	}
	return out, nil
}

func (b Book) event(n Name, s State, payload proto.Message) eventstore.Expected {
	return eventstore.Expected{LastSequence: s.Sequence, Event: eventstore.Event{
		Aggregate: n.Aggregate(), ID: uuid.Must(uuid.NewV7()).String(),
		Payload: payload, Time: b.Now(), Source: b.Source,
	}}
}
