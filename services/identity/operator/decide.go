package operator

import (
	"crypto/subtle"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/services/identity/credential"
)

// Decide says what happens when the command meets the state; nil for nothing. Errors:
// those of this package.
func Decide(s State, c Command, now time.Time) (proto.Message, error) {
	switch c := c.(type) {
	case nil:
		return nil, ErrMalformed
	case Bootstrap:
		return bootstrap(s, c)
	case Register:
		return register(s, c)
	}
	if !s.Exists() {
		return nil, ErrUnknown
	}
	switch c := c.(type) {
	case ReplaceToken:
		if c.TokenSHA256 == (credential.Hash{}) {
			return nil, ErrMalformed
		}
		return &identityv1.AccessTokenReplaced{TokenSha256: c.TokenSHA256[:]}, nil
	case GrantScopes:
		lacking := s.Lacks(c.Scopes...)
		if len(lacking) == 0 {
			return nil, ErrGranted
		}
		return &identityv1.ScopesGranted{Scopes: lacking}, nil
	case SendVerification:
		if s.Verified() || c.VerifySHA256 == (credential.Hash{}) {
			return nil, ErrCode
		}
		return &identityv1.EmailVerificationSent{VerifySha256: c.VerifySHA256[:]}, nil
	case VerifyEmail:
		if s.Verified() || now.Sub(s.VerifySince) > verifyWithin || subtle.ConstantTimeCompare(s.VerifySHA256[:], c.VerifySHA256[:]) != 1 {
			return nil, ErrCode
		}
		return &identityv1.EmailVerified{}, nil
	case Delete:
		// The first operator is the platform's own.
		if len(s.Password) == 0 {
			return nil, ErrMalformed
		}
		return &identityv1.AccountDeleted{}, nil
	case LogOut:
		return &identityv1.LoggedOut{}, nil
	case ChangePassword:
		if err := samePassword(s, c.Password, c.Epoch); err != nil {
			return nil, err
		}
		return &identityv1.PasswordChanged{Password: c.Password}, nil
	case SendReset:
		if len(s.Password) == 0 || !s.Verified() || c.SHA256 == (credential.Hash{}) {
			return nil, ErrMalformed
		}
		return &identityv1.PasswordResetSent{ResetSha256: c.SHA256[:]}, nil
	case ResetPassword:
		switch {
		case len(c.Password) == 0:
			return nil, ErrMalformed
		case !s.Resets(c.SHA256, now):
			return nil, ErrCode
		}
		return &identityv1.PasswordChanged{Password: c.Password}, nil
	case Rehash:
		if err := samePassword(s, c.Password, c.Epoch); err != nil {
			return nil, err
		}
		return &identityv1.PasswordRehashed{Password: c.Password}, nil
	}
	return secondFactor(s, c)
}

func samePassword(s State, password []byte, epoch uint32) error {
	switch {
	case len(password) == 0 || len(s.Password) == 0:
		return ErrMalformed
	case epoch != s.PasswordEpoch:
		return ErrStale
	}
	return nil
}

func secondFactor(s State, c Command) (proto.Message, error) {
	switch c := c.(type) {
	case EnrollTotp:
		if s.Totp.Confirmed {
			return nil, ErrSecondFactor
		}
		if len(c.Secret) == 0 {
			return nil, ErrMalformed
		}
		return &identityv1.TotpEnrolled{Secret: c.Secret}, nil
	case ConfirmTotp:
		if s.Totp.Confirmed || s.Totp.Secret == nil {
			return nil, ErrSecondFactor
		}
		if len(c.Recovery) == 0 {
			return nil, ErrMalformed
		}
		e := &identityv1.TotpConfirmed{Step: c.Step}
		for _, h := range c.Recovery {
			e.RecoverySha256 = append(e.RecoverySha256, h[:])
		}
		return e, nil
	case UseTotp:
		if !s.Totp.Confirmed {
			return nil, ErrSecondFactor
		}
		if c.Step <= s.Totp.Step {
			return nil, ErrCode
		}
		return &identityv1.TotpUsed{Step: c.Step}, nil
	case UseRecovery:
		if !s.Totp.Confirmed {
			return nil, ErrSecondFactor
		}
		if !slices.ContainsFunc(s.Totp.Recovery, func(h credential.Hash) bool {
			return subtle.ConstantTimeCompare(h[:], c.SHA256[:]) == 1
		}) {
			return nil, ErrCode
		}
		return &identityv1.RecoveryCodeUsed{Sha256: c.SHA256[:]}, nil
	case DisableTotp:
		if s.Totp.Secret == nil {
			return nil, ErrSecondFactor
		}
		return &identityv1.TotpDisabled{}, nil
	default:
		return nil, ErrMalformed
	}
}

func bootstrap(s State, c Bootstrap) (proto.Message, error) {
	if s.ID != "" {
		return nil, ErrExists
	}
	if c.ID == "" || c.OrgID == "" || c.AppID == "" || c.TokenSHA256 == (credential.Hash{}) {
		return nil, ErrMalformed
	}
	return &identityv1.OperatorBootstrapped{
		OperatorId: c.ID, OrgId: c.OrgID, AppId: c.AppID,
		TokenSha256: c.TokenSHA256[:], Scopes: slices.Clone(c.Scopes),
	}, nil
}

func register(s State, c Register) (proto.Message, error) {
	if s.ID != "" {
		return nil, ErrExists
	}
	if c.ID == "" || c.OrgID == "" || c.EmailHash == (credential.Hash{}) || len(c.Profile) == 0 || len(c.Password) == 0 {
		return nil, ErrMalformed
	}
	e := &identityv1.OperatorRegistered{
		OperatorId: c.ID, PersonalOrgId: c.OrgID, EmailHash: c.EmailHash[:],
		Profile: c.Profile, Password: c.Password, Admin: c.Admin,
	}
	if c.VerifySHA256 != (credential.Hash{}) {
		e.VerifySha256 = c.VerifySHA256[:]
	}
	return e, nil
}
