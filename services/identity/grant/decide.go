package grant

import (
	"crypto/sha256"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/identity/scope"
)

// Codes of refusals, as RFC 6749 names them.
const (
	CodeInvalidGrant = "invalid_grant"
	CodeInvalidScope = "invalid_scope"
)

// Command asks for a change.
type Command interface{ command() }

// TokenHashes are the hashes of a new pair of tokens.
type TokenHashes struct{ Access, Refresh Hash }

// Open makes a grant that waits for its code.
type Open struct {
	ID, OrgID, OperatorID string
	ClientID, ClientName  string
	Scopes                []string
	RedirectURI           string
	Challenge, Code       Hash
	PasswordEpoch         uint32
}

// OpenForDevice makes a grant with its first tokens.
type OpenForDevice struct {
	ID, OrgID, OperatorID string
	ClientID, ClientName  string
	Scopes                []string
	DeviceID              string
	Tokens                TokenHashes
	PasswordEpoch         uint32
}

// RedeemCode turns the code into tokens.
type RedeemCode struct {
	ClientID    string
	Code        Hash
	RedirectURI string
	Verifier    string
	Tokens      TokenHashes
}

// UseRefresh turns the refresh token into new tokens.
type UseRefresh struct {
	ClientID string
	Refresh  Hash
	// Scopes narrow the access token; all of the grant's when empty.
	Scopes []string
	Tokens TokenHashes
}

// RevokeToken ends what the client's token stands for.
type RevokeToken struct {
	ClientID string
	Token    Hash
}

// Revoke ends the grant.
type Revoke struct{}

func (Open) command()          {}
func (OpenForDevice) command() {}
func (RedeemCode) command()    {}
func (UseRefresh) command()    {}
func (RevokeToken) command()   {}
func (Revoke) command()        {}

// Decide says what happens when the command meets the state. RedeemCode and UseRefresh
// may decide on GrantRevoked, which refuses them. Errors: *problem.Error with the
// codes of RFC 6749.
func Decide(s State, c Command, now time.Time) (proto.Message, error) {
	switch c := c.(type) {
	case Open:
		if s.Exists() {
			return nil, problem.Conflict("There is such a grant already; ask for consent again.")
		}
		return &identityv1.GrantOpened{
			GrantId: c.ID, OrgId: c.OrgID, OperatorId: c.OperatorID, ClientId: c.ClientID, ClientName: c.ClientName,
			Scopes: scope.Sorted(c.Scopes), RedirectUri: c.RedirectURI,
			CodeChallenge: c.Challenge[:], CodeSha256: c.Code[:], CodeExpiresAt: timestamppb.New(now.Add(CodeFor)),
			PasswordEpoch: c.PasswordEpoch,
		}, nil
	case OpenForDevice:
		if s.Exists() {
			return nil, Refuse("The device code has been redeemed already; start again.")
		}
		return &identityv1.DeviceCodeRedeemed{
			GrantId: c.ID, OrgId: c.OrgID, OperatorId: c.OperatorID, ClientId: c.ClientID, ClientName: c.ClientName,
			Scopes: scope.Sorted(c.Scopes), DeviceId: c.DeviceID, Tokens: issue(c.Tokens, c.Scopes, now, now), PasswordEpoch: c.PasswordEpoch,
		}, nil
	case RedeemCode:
		return redeem(s, c, now)
	case UseRefresh:
		return refresh(s, c, now)
	case RevokeToken:
		return revokeToken(s, c), nil
	case Revoke:
		if !s.Exists() || s.Revoked {
			return nil, nil
		}
		return &identityv1.GrantRevoked{Reason: ReasonRevoked}, nil
	default:
		return nil, problem.Malformed("There is no such command.")
	}
}

func redeem(s State, c RedeemCode, now time.Time) (proto.Message, error) {
	switch {
	case s.Code == nil || !same(s.Code.SHA256, c.Code) || s.ClientID != c.ClientID || s.Revoked:
		return nil, Refuse("The code is not valid; send the person to the authorize page again.")
	case s.Code.Redeemed:
		return &identityv1.GrantRevoked{Reason: ReasonCodeReused}, nil
	case !now.Before(s.Code.ExpiresAt):
		return nil, Refuse("The code has expired; send the person to the authorize page again.")
	case s.Code.RedirectURI != c.RedirectURI:
		return nil, Refuse("The redirect_uri is not the one that the code was asked for with.")
	case !wellFormedVerifier(c.Verifier) || !same(s.Code.Challenge, sha256.Sum256([]byte(c.Verifier))):
		return nil, Refuse("The code_verifier does not match the code_challenge.")
	}
	return &identityv1.CodeRedeemed{Tokens: issue(c.Tokens, s.Scopes, s.OpenedAt, now)}, nil
}

func refresh(s State, c UseRefresh, now time.Time) (proto.Message, error) {
	switch {
	case !s.Exists() || s.Revoked || s.ClientID != c.ClientID:
		return nil, Refuse("The refresh token is not valid; sign in again.")
	case slices.ContainsFunc(s.Former, func(h Hash) bool { return same(h, c.Refresh) }):
		return &identityv1.GrantRevoked{Reason: ReasonRefreshReused}, nil
	case !same(s.Refresh.SHA256, c.Refresh):
		return nil, Refuse("The refresh token is not valid; sign in again.")
	case !now.Before(s.Refresh.ExpiresAt):
		return nil, Refuse("The refresh token has expired; sign in again.")
	case !scope.Within(c.Scopes, s.Scopes):
		return nil, &problem.Error{Status: http.StatusBadRequest, Code: CodeInvalidScope, Message: "The scope is wider than what was granted; ask for consent again."}
	}
	scopes := c.Scopes
	if len(scopes) == 0 {
		scopes = s.Scopes
	}
	return &identityv1.TokensRefreshed{Tokens: issue(c.Tokens, scopes, s.OpenedAt, now)}, nil
}

func revokeToken(s State, c RevokeToken) proto.Message {
	if !s.Exists() || s.Revoked || s.ClientID != c.ClientID {
		return nil
	}
	for _, a := range s.Access {
		if same(a.SHA256, c.Token) {
			return &identityv1.AccessTokenRevoked{AccessSha256: c.Token[:]}
		}
	}
	if same(s.Refresh.SHA256, c.Token) || slices.ContainsFunc(s.Former, func(h Hash) bool { return same(h, c.Token) }) {
		return &identityv1.GrantRevoked{Reason: ReasonRevoked}
	}
	return nil
}

// Refuse is OAuth's invalid_grant.
func Refuse(message string) error {
	return &problem.Error{Status: http.StatusBadRequest, Code: CodeInvalidGrant, Message: message}
}

// wellFormedVerifier follows RFC 7636, section 4.1.
func wellFormedVerifier(v string) bool {
	const unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
	return len(v) >= 43 && len(v) <= 128 && strings.Trim(v, unreserved) == ""
}
