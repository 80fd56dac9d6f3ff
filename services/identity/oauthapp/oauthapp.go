// Package oauthapp is the aggregate of one OAuth client: its name, where it may send
// people back to, and the most that it may ask for. It is pure.
package oauthapp

import (
	"crypto/sha256"
	"crypto/subtle"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
)

// CommandLine is the client id of the command line slipway: a public client that every
// platform has, for the device flow alone (RFC 8628).
const CommandLine = "slipway-cli"

// State is a client as its events say; the zero State is none yet.
type State struct {
	ClientID, OrgID, OperatorID string
	Name                        string
	RedirectURIs                []string
	// SecretSHA256 is empty for a public client.
	SecretSHA256 []byte
	Scopes       []string
	CreatedAt    time.Time
	// Deleted clients keep their id, so that it is never another's.
	Deleted bool
}

// Exists reports whether the client has been registered and not been deleted.
func (s State) Exists() bool { return s.ClientID != "" && !s.Deleted }

// Confidential reports whether the client has a secret (RFC 6749, section 2.1).
func (s State) Confidential() bool { return len(s.SecretSHA256) > 0 }

// Authentic reports whether the secret is the client's: none for a public one.
func (s State) Authentic(secret string) bool {
	if !s.Confidential() {
		return s.Exists() && secret == ""
	}
	hash := sha256.Sum256([]byte(secret))
	return subtle.ConstantTimeCompare(hash[:], s.SecretSHA256) == 1
}

// Redirects reports whether the client may have people sent to uri: letter for letter
// one of those that it registered.
func (s State) Redirects(uri string) bool { return slices.Contains(s.RedirectURIs, uri) }

// Command asks for a change.
type Command interface{ command() }

func (Register) command()     {}
func (RotateSecret) command() {}
func (Delete) command()       {}

// RotateSecret gives a confidential client another secret.
type RotateSecret struct{ SecretSHA256 []byte }

// Delete ends a client for ever.
type Delete struct{}

// Register makes a client. SecretSHA256 is empty for a public one.
type Register struct {
	ClientID, OrgID, OperatorID string
	Name                        string
	RedirectURIs                []string
	SecretSHA256                []byte
	Scopes                      []string
	// Grantable are the scopes that who registers may give to an app.
	Grantable []string
}

// Decider is the aggregate.
func Decider() decider.Decider[State, Command] {
	return decider.Decider[State, Command]{Initial: func() State { return State{} }, Decide: decide, Evolve: Evolve}
}

func decide(s State, c Command, _ time.Time) (proto.Message, error) {
	if c, ok := c.(Register); ok {
		return register(s, c)
	}
	if !s.Exists() {
		return nil, problem.NotFound("There is no app with this client_id.")
	}
	switch c := c.(type) {
	case RotateSecret:
		switch {
		case !s.Confidential():
			return nil, problem.InvalidState("The app is public: it has no secret, and needs none.")
		case len(c.SecretSHA256) != sha256.Size:
			return nil, problem.Malformed("The secret's hash is not a SHA-256.")
		}
		return &identityv1.OAuthAppSecretRotated{SecretSha256: slices.Clone(c.SecretSHA256)}, nil
	case Delete:
		return &identityv1.OAuthAppDeleted{}, nil
	default:
		return nil, problem.Malformed("There is no such command on an app.")
	}
}

func register(s State, c Register) (proto.Message, error) {
	if s.ClientID != "" {
		return nil, problem.Conflict("There is an app with this client_id already; register again.")
	}
	if fields := faults(c); len(fields) > 0 {
		return nil, problem.Validation(fields)
	}
	return &identityv1.OAuthAppRegistered{
		ClientId: c.ClientID, OrgId: c.OrgID, OperatorId: c.OperatorID, Name: c.Name,
		RedirectUris: slices.Clone(c.RedirectURIs), SecretSha256: slices.Clone(c.SecretSHA256), Scopes: slices.Clone(c.Scopes),
	}, nil
}

// Evolve folds one event in. Events of other kinds change nothing.
func Evolve(s State, event eventstore.Recorded) State {
	switch e := event.Payload.(type) {
	case *identityv1.OAuthAppRegistered:
		if s.ClientID != "" {
			return s
		}
		return State{
			ClientID: e.GetClientId(), OrgID: e.GetOrgId(), OperatorID: e.GetOperatorId(), Name: e.GetName(),
			RedirectURIs: e.GetRedirectUris(), SecretSHA256: e.GetSecretSha256(), Scopes: e.GetScopes(), CreatedAt: event.Time,
		}
	case *identityv1.OAuthAppSecretRotated:
		if s.Exists() && len(e.GetSecretSha256()) == sha256.Size {
			s.SecretSHA256 = e.GetSecretSha256()
		}
	case *identityv1.OAuthAppDeleted:
		if s.Exists() {
			return State{ClientID: s.ClientID, OrgID: s.OrgID, Deleted: true}
		}
	}
	return s
}
