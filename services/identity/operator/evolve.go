package operator

import (
	"slices"
	"time"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/services/identity/credential"
)

// Evolve folds one event in. Events of other kinds change nothing.
func Evolve(s State, rec eventstore.Recorded) State {
	switch e := rec.Payload.(type) {
	case *identityv1.OperatorBootstrapped:
		if h := hash(e.GetTokenSha256()); s.ID == "" && h != (credential.Hash{}) {
			return State{
				ID: e.GetOperatorId(), OrgID: e.GetOrgId(), AppID: e.GetAppId(), TokenSHA256: h,
				Scopes: slices.Clone(e.GetScopes()), Admin: runsPlatform(e.GetScopes()), CreatedAt: rec.Time, UpdatedAt: rec.Time,
			}
		}
		return s
	case *identityv1.OperatorRegistered:
		if h := hash(e.GetEmailHash()); s.ID == "" && h != (credential.Hash{}) {
			return State{
				ID: e.GetOperatorId(), OrgID: e.GetPersonalOrgId(), EmailHash: h, Profile: e.GetProfile(), Password: e.GetPassword(),
				Admin: e.GetAdmin(), VerifySHA256: hash(e.GetVerifySha256()), VerifySince: rec.Time, CreatedAt: rec.Time, UpdatedAt: rec.Time,
			}
		}
		return s
	}
	if !s.Exists() {
		return s
	}
	switch e := rec.Payload.(type) {
	case *identityv1.AccessTokenReplaced:
		if h := hash(e.GetTokenSha256()); h != (credential.Hash{}) {
			s.TokenSHA256 = h
		}
	case *identityv1.ScopesGranted:
		s.Scopes = slices.Concat(s.Scopes, s.Lacks(e.GetScopes()...))
		s.Admin = s.Admin || runsPlatform(s.Scopes)
	case *identityv1.EmailVerificationSent:
		if h := hash(e.GetVerifySha256()); h != (credential.Hash{}) {
			s.VerifySHA256, s.VerifySince = h, rec.Time
		}
	case *identityv1.EmailVerified:
		s.VerifySHA256, s.UpdatedAt = credential.Hash{}, rec.Time
	case *identityv1.PasswordChanged:
		s.Password, s.UpdatedAt = e.GetPassword(), rec.Time
		s.ResetSHA256, s.ResetSince = credential.Hash{}, time.Time{}
		s.PasswordEpoch++
		s.LoginEpoch++
	case *identityv1.PasswordResetSent:
		if h := hash(e.GetResetSha256()); h != (credential.Hash{}) {
			s.ResetSHA256, s.ResetSince = h, rec.Time
		}
	case *identityv1.PasswordRehashed:
		s.Password = e.GetPassword()
	case *identityv1.AccountDeleted:
		return State{ID: s.ID, Deleted: true}
	case *identityv1.LoggedOut:
		s.LoginEpoch++
	case *identityv1.TotpEnrolled:
		s.Totp = Totp{Secret: e.GetSecret()}
	case *identityv1.TotpConfirmed:
		recovery := make([]credential.Hash, 0, len(e.GetRecoverySha256()))
		for _, h := range e.GetRecoverySha256() {
			recovery = append(recovery, hash(h))
		}
		s.Totp, s.UpdatedAt = Totp{Secret: s.Totp.Secret, Confirmed: true, Step: e.GetStep(), Recovery: recovery}, rec.Time
	case *identityv1.TotpUsed:
		s.Totp.Step = max(s.Totp.Step, e.GetStep())
	case *identityv1.RecoveryCodeUsed:
		used := hash(e.GetSha256())
		s.Totp.Recovery = slices.DeleteFunc(slices.Clone(s.Totp.Recovery), func(h credential.Hash) bool { return h == used })
	case *identityv1.TotpDisabled:
		s.Totp, s.UpdatedAt = Totp{}, rec.Time
	}
	return s
}
