// Package operator is the aggregate of one person's account: who they are, how they
// prove it, and which of what they were given counts no more. It is pure: no clock, no
// random, no I/O.
package operator

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"slices"
	"time"

	"github.com/slipway-paas/slipway/libs/access"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/services/identity/credential"
)

var (
	// ErrExists is returned when an operator that exists is to be made.
	ErrExists = errors.New("the operator exists already")
	// ErrUnknown is returned for a command on an operator that does not exist.
	ErrUnknown = errors.New("there is no such operator")
	// ErrGranted is returned when the operator has every scope that is to be granted.
	ErrGranted = errors.New("the operator has these scopes")
	// ErrMalformed is returned for a command that lacks something.
	ErrMalformed = errors.New("the command lacks an id, an organization, an app, a hash or a sealed value")
	// ErrStale is returned when the password or the second factor has changed since
	// it was checked.
	ErrStale = errors.New("what was checked has changed since")
	// ErrCode is returned for a code that is not the operator's, or was used.
	ErrCode = errors.New("the code is not valid")
	// ErrSecondFactor is returned when there is a second factor already, or none.
	ErrSecondFactor = errors.New("there is a second factor already, or none")
)

// Decider runs commands on an operator.
func Decider() decider.Decider[State, Command] {
	return decider.Decider[State, Command]{
		Initial: func() State { return State{} }, Decide: Decide, Evolve: Evolve,
	}
}

// State is an operator as its events say; the zero State is none yet.
type State struct {
	ID string
	// OrgID is the organization that the operator acts for when it names none.
	OrgID string
	// Deleted says that the account was; nothing else is known of it.
	Deleted bool
	// Admin says that the operator runs the platform.
	Admin     bool
	CreatedAt time.Time
	UpdatedAt time.Time

	// AppID, TokenSHA256 and Scopes are the first operator's access token.
	AppID       string
	TokenSHA256 credential.Hash
	Scopes      []string

	// EmailHash finds the account; zero for the first operator, who has none.
	EmailHash credential.Hash
	// Profile and Password are sealed.
	Profile, Password []byte
	// VerifySHA256 is of the code that the address waits for; zero when it is verified.
	VerifySHA256 credential.Hash
	// VerifySince is when it was made.
	VerifySince time.Time

	// ResetSHA256 is of the code that may set another password; zero for none.
	ResetSHA256 credential.Hash
	// ResetSince is when it was made.
	ResetSince time.Time

	// PasswordEpoch counts changes of the password, LoginEpoch those and logouts:
	// what was given out in an older epoch has ended.
	PasswordEpoch, LoginEpoch uint32

	Totp Totp
}

// Totp is the second factor.
type Totp struct {
	// Secret is sealed; nil for none.
	Secret []byte
	// Confirmed says that it is needed at login.
	Confirmed bool
	// Step is the last time step whose code was used.
	Step     int64
	Recovery []credential.Hash
}

// verifyWithin is how long a mailed code is good.
const verifyWithin = 24 * time.Hour

// resetWithin is how long a code that sets another password is good.
const resetWithin = time.Hour

// Resets reports whether the code with that hash may set another password.
func (s State) Resets(code credential.Hash, now time.Time) bool {
	return s.ResetSHA256 != (credential.Hash{}) && now.Sub(s.ResetSince) <= resetWithin &&
		subtle.ConstantTimeCompare(s.ResetSHA256[:], code[:]) == 1
}

// Exists reports whether the operator has been made and not been deleted.
func (s State) Exists() bool { return s.ID != "" && !s.Deleted }

// Verified reports whether the account waits for no proof of its address.
func (s State) Verified() bool { return s.VerifySHA256 == credential.Hash{} }

// Holds reports whether a credential is of the operator's current epochs.
func (s State) Holds(c credential.Credential) bool {
	switch c.Bond {
	case credential.ToPassword:
		return c.Epoch == s.PasswordEpoch
	case credential.ToLogin:
		return c.Epoch == s.LoginEpoch
	}
	return true
}

// Credentials are the first operator's access token; see credential.Issuer.
func (s State) Credentials() []credential.Credential {
	if s.TokenSHA256 == (credential.Hash{}) {
		return nil
	}
	return []credential.Credential{{
		Hash: s.TokenSHA256, Kind: credential.AccessToken, Operator: s.ID, Org: s.OrgID, App: s.AppID, Scopes: s.Scopes,
	}}
}

// Lacks are those of scopes that the operator's token does not have.
func (s State) Lacks(scopes ...string) []string {
	return slices.DeleteFunc(slices.Clone(scopes), func(scope string) bool { return slices.Contains(s.Scopes, scope) })
}

// Command asks for a change.
type Command interface{ command() }

type (
	// Bootstrap makes the first operator with its access token.
	Bootstrap struct {
		ID, OrgID, AppID string
		TokenSHA256      credential.Hash
		Scopes           []string
	}
	// ReplaceToken gives the first operator another access token; the old one ends.
	ReplaceToken struct{ TokenSHA256 credential.Hash }
	// GrantScopes lets the operator's token do more; scopes that it has are no matter.
	GrantScopes struct{ Scopes []string }

	// Register makes an operator with an account.
	Register struct {
		ID, OrgID         string
		EmailHash         credential.Hash
		Profile, Password []byte
		Admin             bool
		// VerifySHA256 is zero when the address needs no proof.
		VerifySHA256 credential.Hash
	}
	// SendVerification replaces the code that the address waits for.
	SendVerification struct{ VerifySHA256 credential.Hash }
	// VerifyEmail gives the hash of the code that was mailed.
	VerifyEmail struct{ VerifySHA256 credential.Hash }

	// ChangePassword needs the epoch that the old password was checked in.
	ChangePassword struct {
		Password []byte
		Epoch    uint32
	}
	// SendReset replaces the code that may set another password.
	SendReset struct{ SHA256 credential.Hash }
	// ResetPassword gives the hash of the code that was mailed.
	ResetPassword struct {
		SHA256   credential.Hash
		Password []byte
	}
	// Rehash stores the password with other parameters.
	Rehash struct {
		Password []byte
		Epoch    uint32
	}
	// LogOut ends all sessions.
	LogOut struct{}

	// Delete ends the account for good.
	Delete struct{}

	// EnrollTotp proposes a second factor in place of one that is not confirmed.
	EnrollTotp struct{ Secret []byte }
	// ConfirmTotp makes it count; Step is that of a code that was right.
	ConfirmTotp struct {
		Recovery []credential.Hash
		Step     int64
	}
	// UseTotp spends the code of a step that was right.
	UseTotp struct{ Step int64 }
	// UseRecovery spends a recovery code.
	UseRecovery struct{ SHA256 credential.Hash }
	// DisableTotp takes the second factor away.
	DisableTotp struct{}
)

func (Bootstrap) command()        {}
func (ReplaceToken) command()     {}
func (GrantScopes) command()      {}
func (Register) command()         {}
func (SendVerification) command() {}
func (VerifyEmail) command()      {}
func (ChangePassword) command()   {}
func (SendReset) command()        {}
func (ResetPassword) command()    {}
func (Rehash) command()           {}
func (LogOut) command()           {}
func (Delete) command()           {}
func (EnrollTotp) command()       {}
func (ConfirmTotp) command()      {}
func (UseTotp) command()          {}
func (UseRecovery) command()      {}
func (DisableTotp) command()      {}

// hash reads a hash of an event; zero for what is none.
func hash(b []byte) credential.Hash {
	if len(b) != sha256.Size {
		return credential.Hash{}
	}
	return credential.Hash(b)
}

// runsPlatform reports whether scopes of a token make its operator an admin.
func runsPlatform(scopes []string) bool { return slices.Contains(scopes, access.Admin) }
