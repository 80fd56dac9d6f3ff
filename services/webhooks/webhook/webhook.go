// Package webhook is the aggregate of one endpoint that is told of an organization's
// events. It is pure; what is sealed in it is opened by who delivers.
package webhook

import (
	"bytes"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	webhooksv1 "github.com/slipway-paas/slipway/gen/slipway/webhooks/v1"
	"github.com/slipway-paas/slipway/libs/cloudevents"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/eventstore"
)

// PreviousSigns is how long the secret before goes on signing after a rotation.
const PreviousSigns = 24 * time.Hour

// Reasons for which a webhook is disabled.
const (
	// Failing: no delivery has succeeded for days.
	Failing = "failing"
	// Gone: the endpoint answered 410.
	Gone = "gone"
)

var (
	// ErrExists is returned when a webhook is to be made twice.
	ErrExists = errors.New("the webhook exists already")
	// ErrUnknown is returned for a webhook that does not exist, or no longer.
	ErrUnknown = errors.New("there is no such webhook")
	// ErrChanged is returned for a command that was made from an older target: it would
	// undo what somebody else did.
	ErrChanged = errors.New("the webhook has changed meanwhile")
	// ErrMalformed is returned for a command that lacks something.
	ErrMalformed = errors.New("the command lacks an id, an organization or a target")
)

// State is a webhook; the zero State is none yet.
type State struct {
	ID, Org, CreatedBy, Description string
	Types, Aggregates               []string
	// Target is sealed: url, secret and, after a rotation, previous.
	Target        []byte
	PreviousUntil time.Time
	CreatedAt     time.Time
	// Since is the sequence after which events are delivered.
	Since uint64
	// EnabledAt is when deliveries began, the last time.
	EnabledAt      time.Time
	DisabledReason string
	Deleted        bool
}

// Live reports whether there is such a webhook.
func (s State) Live() bool { return s.ID != "" && !s.Deleted }

// Enabled reports whether it is delivered to.
func (s State) Enabled() bool { return s.Live() && s.DisabledReason == "" }

// Wants reports whether an event is to be delivered to it.
func (s State) Wants(rec eventstore.Recorded) bool {
	return s.Enabled() && rec.Sequence > s.Since && rec.Readable() && s.Selects(rec)
}

// Selects reports whether its filters let the event through, whenever it happened.
func (s State) Selects(rec eventstore.Recorded) bool {
	of, err := cloudevents.Select(s.Org, s.Types, s.Aggregates)
	return err == nil && of.Matches(rec.Aggregate, rec.Type())
}

// Command asks for a change.
type Command interface{ command() }

type (
	// Create makes a webhook.
	Create struct {
		ID, Org, By, Description string
		Types, Aggregates        []string
		Target                   []byte
	}
	// Update replaces where it leads and what it is told of; Was is the target that
	// Target was made from.
	Update struct {
		By, Description   string
		Types, Aggregates []string
		Target, Was       []byte
	}
	// Rotate replaces the target by one with another secret; Was is as in Update.
	Rotate struct{ Target, Was []byte }
	// Disable ends deliveries; FailingSince is zero for Gone. It is for the webhook as it
	// was with that Since: one that was enabled meanwhile has another chance.
	Disable struct {
		Reason       string
		FailingSince time.Time
		Since        uint64
	}
	// Enable begins them again.
	Enable struct{ By string }
	// Delete ends the webhook.
	Delete struct{ By string }
)

func (Create) command()  {}
func (Update) command()  {}
func (Rotate) command()  {}
func (Disable) command() {}
func (Enable) command()  {}
func (Delete) command()  {}

// Decider runs commands on a webhook.
func Decider() decider.Decider[State, Command] {
	return decider.Decider[State, Command]{Initial: func() State { return State{} }, Decide: Decide, Evolve: Evolve}
}

// Decide says what happens; nil for nothing. Errors: those of this package.
func Decide(s State, c Command, now time.Time) (proto.Message, error) {
	if create, ok := c.(Create); ok {
		switch {
		case s.ID != "":
			return nil, ErrExists
		case create.ID == "", create.Org == "", len(create.Target) == 0:
			return nil, ErrMalformed
		}
		return &webhooksv1.WebhookCreated{
			WebhookId: create.ID, OrgId: create.Org, CreatedBy: create.By, Description: create.Description,
			Types: slices.Clone(create.Types), Aggregates: slices.Clone(create.Aggregates), Target: slices.Clone(create.Target),
		}, nil
	}
	if !s.Live() {
		return nil, ErrUnknown
	}
	switch c := c.(type) {
	case Update:
		if err := s.replaceable(c.Target, c.Was); err != nil {
			return nil, err
		}
		return &webhooksv1.WebhookUpdated{
			UpdatedBy: c.By, Description: c.Description, Types: slices.Clone(c.Types), Aggregates: slices.Clone(c.Aggregates), Target: slices.Clone(c.Target),
		}, nil
	case Rotate:
		if err := s.replaceable(c.Target, c.Was); err != nil {
			return nil, err
		}
		return &webhooksv1.WebhookSecretRotated{Target: slices.Clone(c.Target), PreviousUntil: timestamppb.New(now.Add(PreviousSigns))}, nil
	case Disable:
		if !s.Enabled() || s.Since != c.Since {
			return nil, nil
		}
		e := &webhooksv1.WebhookDisabled{Reason: c.Reason}
		if !c.FailingSince.IsZero() {
			e.FailingSince = timestamppb.New(c.FailingSince)
		}
		return e, nil
	case Enable:
		if s.Enabled() {
			return nil, nil
		}
		return &webhooksv1.WebhookEnabled{EnabledBy: c.By}, nil
	case Delete:
		return &webhooksv1.WebhookDeleted{DeletedBy: c.By}, nil
	}
	return nil, ErrMalformed
}

func (s State) replaceable(target, was []byte) error {
	switch {
	case len(target) == 0:
		return ErrMalformed
	case !bytes.Equal(s.Target, was):
		return ErrChanged
	}
	return nil
}

// Evolve folds one event in.
func Evolve(s State, rec eventstore.Recorded) State {
	if created, ok := rec.Payload.(*webhooksv1.WebhookCreated); ok {
		if s.ID != "" {
			return s
		}
		return State{
			ID: created.GetWebhookId(), Org: created.GetOrgId(), CreatedBy: created.GetCreatedBy(), Description: created.GetDescription(),
			Types: slices.Clone(created.GetTypes()), Aggregates: slices.Clone(created.GetAggregates()), Target: slices.Clone(created.GetTarget()),
			CreatedAt: rec.Time, EnabledAt: rec.Time, Since: rec.Sequence,
		}
	}
	if !s.Live() {
		return s
	}
	switch e := rec.Payload.(type) {
	case *webhooksv1.WebhookUpdated:
		s.Description, s.Target = e.GetDescription(), slices.Clone(e.GetTarget())
		s.Types, s.Aggregates = slices.Clone(e.GetTypes()), slices.Clone(e.GetAggregates())
	case *webhooksv1.WebhookSecretRotated:
		s.Target = slices.Clone(e.GetTarget())
		s.PreviousUntil = e.GetPreviousUntil().AsTime()
	case *webhooksv1.WebhookDisabled:
		s.DisabledReason = e.GetReason()
		if s.DisabledReason == "" {
			s.DisabledReason = Failing
		}
	case *webhooksv1.WebhookEnabled:
		s.DisabledReason, s.Since, s.EnabledAt = "", rec.Sequence, rec.Time
	case *webhooksv1.WebhookDeleted:
		s.Deleted, s.Target = true, nil
	}
	return s
}
