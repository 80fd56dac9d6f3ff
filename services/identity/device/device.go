// Package device is the aggregate of one device that waits until a person allows it in
// (RFC 8628). It is pure. What it is allowed becomes a grant when it redeems its code.
package device

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/identity/scope"
)

// For is how long a device waits, Interval how often it may ask.
const (
	For      = 10 * time.Minute
	Interval = 5 * time.Second
)

// Codes of refusals, as RFC 8628 names them.
const (
	CodePending  = "authorization_pending"
	CodeSlowDown = "slow_down"
	CodeExpired  = "expired_token"
	CodeDenied   = "access_denied"
)

// Hash is the SHA-256 of a code.
type Hash = [sha256.Size]byte

// State is a device's wait as its events say; the zero State is none yet.
type State struct {
	ID                   string
	ClientID, ClientName string
	// Scopes are those that were asked for, and once approved those that were allowed.
	Scopes               []string
	DeviceCode, UserCode Hash
	ExpiresAt            time.Time
	// OperatorID is who decided, OrgID for which org it was approved.
	OperatorID, OrgID string
	PasswordEpoch     uint32
	Denied            bool
}

// Exists reports whether there is such a device.
func (s State) Exists() bool { return s.ID != "" }

// Waits reports whether nobody has decided yet, in time.
func (s State) Waits(now time.Time) bool {
	return s.Exists() && s.OperatorID == "" && now.Before(s.ExpiresAt)
}

// Redeemable is nil when the device may have its tokens. Errors: *problem.Error with the
// codes of RFC 8628.
func (s State) Redeemable(clientID string, code Hash, now time.Time) error {
	refused := func(code, message string) error {
		return &problem.Error{Status: http.StatusBadRequest, Code: code, Message: message}
	}
	switch {
	case !s.Exists() || s.ClientID != clientID || subtle.ConstantTimeCompare(s.DeviceCode[:], code[:]) != 1:
		return refused("invalid_grant", "The device code is not valid; start again.")
	case s.Denied:
		return refused(CodeDenied, "The person has refused.")
	case !now.Before(s.ExpiresAt):
		return refused(CodeExpired, "The device code has expired; start again.")
	case s.OperatorID == "":
		return refused(CodePending, "The person has not decided yet; ask again in a few seconds.")
	}
	return nil
}

// Command asks for a change.
type Command interface{ command() }

// Start makes a device wait.
type Start struct {
	ID, ClientID, ClientName string
	Scopes                   []string
	DeviceCode, UserCode     Hash
}

// Approve lets it in, for the org, with some or all of the scopes.
type Approve struct {
	OperatorID, OrgID string
	Scopes            []string
	PasswordEpoch     uint32
}

// Deny refuses it.
type Deny struct{ OperatorID string }

func (Start) command()   {}
func (Approve) command() {}
func (Deny) command()    {}

// Decider is the aggregate.
func Decider() decider.Decider[State, Command] {
	return decider.Decider[State, Command]{Initial: func() State { return State{} }, Decide: decide, Evolve: Evolve}
}

func decide(s State, c Command, now time.Time) (proto.Message, error) {
	if start, ok := c.(Start); ok {
		if s.Exists() {
			return nil, problem.Conflict("There is such a device already; start again.")
		}
		return &identityv1.DeviceCodeIssued{
			DeviceId: start.ID, ClientId: start.ClientID, ClientName: start.ClientName, Scopes: scope.Sorted(start.Scopes),
			DeviceCodeSha256: start.DeviceCode[:], UserCodeSha256: start.UserCode[:], ExpiresAt: timestamppb.New(now.Add(For)),
		}, nil
	}
	if !s.Waits(now) {
		return nil, problem.NotFound("This code is not known, was used already, or has expired; start again on the device.")
	}
	switch c := c.(type) {
	case Approve:
		if len(c.Scopes) == 0 || !scope.Within(c.Scopes, s.Scopes) {
			return nil, problem.Forbidden("The device has not asked for that.")
		}
		return &identityv1.DeviceApproved{OperatorId: c.OperatorID, OrgId: c.OrgID, Scopes: scope.Sorted(c.Scopes), PasswordEpoch: c.PasswordEpoch}, nil
	case Deny:
		return &identityv1.DeviceDenied{OperatorId: c.OperatorID}, nil
	default:
		return nil, problem.Malformed("There is no such command.")
	}
}

// Evolve folds one event in. Events of other kinds change nothing.
func Evolve(s State, event eventstore.Recorded) State {
	switch e := event.Payload.(type) {
	case *identityv1.DeviceCodeIssued:
		if s.Exists() || len(e.GetDeviceCodeSha256()) != sha256.Size || len(e.GetUserCodeSha256()) != sha256.Size {
			return s
		}
		return State{
			ID: e.GetDeviceId(), ClientID: e.GetClientId(), ClientName: e.GetClientName(), Scopes: e.GetScopes(),
			DeviceCode: Hash(e.GetDeviceCodeSha256()), UserCode: Hash(e.GetUserCodeSha256()), ExpiresAt: e.GetExpiresAt().AsTime(),
		}
	case *identityv1.DeviceApproved:
		if s.Exists() && s.OperatorID == "" {
			s.OperatorID, s.OrgID, s.Scopes = e.GetOperatorId(), e.GetOrgId(), e.GetScopes()
			s.PasswordEpoch = e.GetPasswordEpoch()
		}
	case *identityv1.DeviceDenied:
		if s.Exists() && s.OperatorID == "" {
			s.OperatorID, s.Denied = e.GetOperatorId(), true
		}
	}
	return s
}
