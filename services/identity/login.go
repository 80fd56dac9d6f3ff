package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/identity/operator"
	"github.com/slipway-paas/slipway/services/identity/session"
	"github.com/slipway-paas/slipway/services/identity/totp"
)

// Login implements identityv1.AccountServiceServer. A login that fails takes as long and
// says the same whether there is an account or not.
func (s accounts) Login(ctx context.Context, in *identityv1.LoginRequest) (*identityv1.LoginResponse, error) {
	if s.Ready() != nil {
		return nil, starting()
	}
	var faults fields
	faults.add(in.GetEmail() != "", "email", "is needed")
	faults.add(in.GetPassword() != "", "password", "is needed")
	if err := faults.err(); err != nil {
		return nil, err
	}
	state, err := s.prove(ctx, in)
	if err != nil {
		return nil, s.answer(ctx, "log in", err)
	}
	user, err := s.user(ctx, state)
	if err != nil {
		return nil, s.answer(ctx, "open a profile", err)
	}
	token, err := s.openSession(ctx, state)
	if err != nil {
		return nil, s.answer(ctx, "open a session", err)
	}
	return &identityv1.LoginResponse{User: user, Token: token}, nil
}

// prove checks all that a login must show.
func (s *Service) prove(ctx context.Context, in *identityv1.LoginRequest) (operator.State, error) {
	// An address that is none has no account: it is looked up like any other.
	email, _ := normalEmail(in.GetEmail())
	hash, err := s.secrets.emailHash(ctx, email)
	if err != nil {
		return operator.State{}, err
	}
	state, known := s.known.byEmail(hash)
	if err := s.checkPassword(ctx, state, known, in.GetPassword()); err != nil {
		return operator.State{}, err
	}
	if !state.Verified() {
		return operator.State{}, &problem.Error{Status: http.StatusForbidden, Code: codeUnverified,
			Message: "Your e-mail address is not verified yet; send the mailed code to POST /api/v1/auth/verify-email, or ask for another at /api/v1/auth/verify-email/send."}
	}
	if !state.Totp.Confirmed {
		return state, nil
	}
	if strings.TrimSpace(in.GetCode()) == "" {
		return operator.State{}, &problem.Error{Status: http.StatusUnauthorized, Code: codeSecondFactor,
			Message: "This account has a second factor; log in with its code, or a recovery code, as code."}
	}
	return s.spendCode(ctx, state, in.GetCode())
}

// checkPassword is wrongLogin unless the account's password is right.
func (s *Service) checkPassword(ctx context.Context, state operator.State, known bool, given string) error {
	if len(given) > 1<<10 {
		given = given[:1<<10]
	}
	home := s.known.home(state.ID)
	if !known {
		// One that there is not: its key is looked for all the same.
		home = subjects.Of(subjects.Platform, subjects.Operator, "nobody")
	}
	values, err := s.deps.Seal.Open(ctx, home, state.Password)
	if !known || len(state.Password) == 0 {
		if err := s.passwords.VerifyNobody(ctx, given); err != nil {
			return fmt.Errorf("check a password: %w", err)
		}
		return wrongLogin()
	}
	if errors.Is(err, seal.ErrDestroyed) {
		return wrongLogin()
	}
	if err != nil {
		return fmt.Errorf("open a password: %w", err)
	}
	right, stale, err := s.passwords.Verify(ctx, values["password"], given)
	if err != nil {
		return fmt.Errorf("check a password: %w", err)
	}
	if !right {
		return wrongLogin()
	}
	if stale {
		s.rehash(ctx, state, given)
	}
	return nil
}

// rehash stores a password with today's parameters; the next login tries again.
func (s *Service) rehash(ctx context.Context, state operator.State, given string) {
	sealed, err := s.sealPassword(ctx, state, given)
	if err == nil {
		_, err = s.change(ctx, state.ID, operator.Rehash{Password: sealed, Epoch: state.PasswordEpoch})
	}
	if err != nil {
		s.deps.Log.WarnContext(ctx, "a password keeps its old parameters", "operator", state.ID, "error", err)
	}
}

func (s *Service) sealPassword(ctx context.Context, state operator.State, given string) ([]byte, error) {
	hash, err := s.passwords.Hash(ctx, given)
	if err != nil {
		return nil, fmt.Errorf("hash a password: %w", err)
	}
	return s.seal(ctx, s.known.home(state.ID), map[string]string{"password": hash})
}

// spendCode takes a code of the second factor or a recovery code, once.
func (s *Service) spendCode(ctx context.Context, state operator.State, code string) (operator.State, error) {
	if wait := s.guesses.wait(state.ID, s.deps.Now()); wait > 0 {
		return operator.State{}, problem.Limit("Too many wrong codes for this account; wait before the next.", wait)
	}
	command, err := s.codeCommand(ctx, state, code)
	if err != nil {
		return operator.State{}, err
	}
	after, err := s.change(ctx, state.ID, command)
	switch {
	case errors.Is(err, operator.ErrCode):
		s.guesses.wrong(state.ID, s.deps.Now())
	case err == nil:
		s.guesses.right(state.ID)
	}
	return after, err
}

// codeCommand spends what the code is.
func (s *Service) codeCommand(ctx context.Context, state operator.State, code string) (operator.Command, error) {
	step, right, err := s.matchTotp(ctx, state, code)
	if err != nil {
		return nil, err
	}
	if right {
		return operator.UseTotp{Step: step}, nil
	}
	return operator.UseRecovery{SHA256: totp.RecoveryHash(code)}, nil
}

func (s *Service) matchTotp(ctx context.Context, state operator.State, code string) (step int64, right bool, err error) {
	values, err := s.deps.Seal.Open(ctx, s.known.home(state.ID), state.Totp.Secret)
	if err != nil {
		return 0, false, fmt.Errorf("open a second factor: %w", err)
	}
	step, right = totp.Match(values["secret"], code, s.deps.Now())
	return step, right, nil
}

// openSession gives out a session's token.
func (s *Service) openSession(ctx context.Context, state operator.State) (string, error) {
	now := s.deps.Now().UTC()
	id, expires := newID(), now.Add(s.config.SessionTTL)
	token, err := s.secrets.token(ctx, s.config.Issuer, state.ID, id, now, expires)
	if err != nil {
		return "", err
	}
	opened, err := session.Decide(session.State{}, session.Open{
		ID: id, Operator: state.ID, TokenSHA256: sha256.Sum256([]byte(token)), ExpiresAt: expires, Epoch: state.LoginEpoch,
	}, now)
	if err != nil {
		return "", fmt.Errorf("open a session: %w", err)
	}
	e := s.event(subjects.Of(subjects.Platform, subjects.Session, id), id, opened)
	e.Actor = state.ID
	sequence, err := s.deps.Store.Append(ctx, eventstore.Expected{Event: e})
	if err != nil {
		return "", fmt.Errorf("write a session to the log: %w", err)
	}
	return token, s.seen(ctx, sequence)
}

// Logout implements identityv1.AccountServiceServer.
func (s accounts) Logout(ctx context.Context, _ *identityv1.LogoutRequest) (*identityv1.LogoutResponse, error) {
	_, state, err := s.account(ctx)
	if err == nil {
		_, err = s.change(ctx, state.ID, operator.LogOut{})
	}
	if err != nil {
		return nil, s.answer(ctx, "log out", err)
	}
	return &identityv1.LogoutResponse{Message: "Logged out everywhere"}, nil
}

// ChangePassword implements identityv1.AccountServiceServer.
func (s accounts) ChangePassword(ctx context.Context, in *identityv1.ChangePasswordRequest) (*identityv1.ChangePasswordResponse, error) {
	_, state, err := s.account(ctx)
	if err != nil {
		return nil, err
	}
	var faults fields
	faults.add(in.GetCurrentPassword() != "", "current_password", "is needed")
	faults.password("new_password", in.GetNewPassword())
	faults.add(in.GetNewPassword() != in.GetCurrentPassword(), "new_password", "must be another than the current one")
	if err := faults.err(); err != nil {
		return nil, err
	}
	res, err := s.changePassword(ctx, state, in)
	return res, s.answer(ctx, "change a password", err)
}

func (s *Service) changePassword(ctx context.Context, state operator.State, in *identityv1.ChangePasswordRequest) (*identityv1.ChangePasswordResponse, error) {
	if err := s.confirm(ctx, state, in.GetCurrentPassword(), "current_password"); err != nil {
		return nil, err
	}
	sealed, err := s.sealPassword(ctx, state, in.GetNewPassword())
	if err != nil {
		return nil, err
	}
	after, err := s.change(ctx, state.ID, operator.ChangePassword{Password: sealed, Epoch: state.PasswordEpoch})
	if err != nil {
		return nil, err
	}
	user, err := s.user(ctx, after)
	if err != nil {
		return nil, err
	}
	token, err := s.openSession(ctx, after)
	if err != nil {
		return nil, err
	}
	return &identityv1.ChangePasswordResponse{User: user, Token: token}, nil
}

// confirm checks the password of who is logged in; a wrong one is a field at fault, so
// that clients do not take it for an ended session. Guesses are counted.
func (s *Service) confirm(ctx context.Context, state operator.State, given, field string) error {
	if wait := s.guesses.wait(state.ID, s.deps.Now()); wait > 0 {
		return problem.Limit("Too many wrong passwords or codes for this account; wait before the next.", wait)
	}
	err := s.checkPassword(ctx, state, true, given)
	var wrong *problem.Error
	if errors.As(err, &wrong) && wrong.Status == http.StatusUnauthorized {
		s.guesses.wrong(state.ID, s.deps.Now())
		return problem.Validation([]problem.Field{{Field: field, Message: "is wrong"}})
	}
	return err
}

// VerifyEmail implements identityv1.AccountServiceServer.
func (s accounts) VerifyEmail(ctx context.Context, in *identityv1.VerifyEmailRequest) (*identityv1.VerifyEmailResponse, error) {
	if s.Ready() != nil {
		return nil, starting()
	}
	email, _ := normalEmail(in.GetEmail())
	hash, err := s.secrets.emailHash(ctx, email)
	if err != nil {
		return nil, s.answer(ctx, "verify an address", err)
	}
	wrong := problem.Validation([]problem.Field{{Field: "code", Message: "is wrong, used or older than a day; ask for another at /api/v1/auth/verify-email/send"}})
	state, known := s.known.byEmail(hash)
	if !known {
		return nil, wrong
	}
	code := sha256.Sum256([]byte(strings.ToUpper(strings.TrimSpace(in.GetCode()))))
	_, err = s.change(ctx, state.ID, operator.VerifyEmail{VerifySHA256: code})
	if errors.Is(err, operator.ErrCode) {
		return nil, wrong
	}
	if err != nil {
		return nil, s.answer(ctx, "verify an address", err)
	}
	return &identityv1.VerifyEmailResponse{Message: "Verified; log in now"}, nil
}

// SendVerification implements identityv1.AccountServiceServer. It says the same for
// every address.
func (s accounts) SendVerification(ctx context.Context, in *identityv1.SendVerificationRequest) (*identityv1.SendVerificationResponse, error) {
	if s.Ready() != nil {
		return nil, starting()
	}
	now := s.deps.Now()
	if err := s.later(func(ctx context.Context) error { return s.sendVerification(ctx, in.GetEmail(), now) }); err != nil {
		return nil, err
	}
	return &identityv1.SendVerificationResponse{Message: "If the address waits for a code, one is on its way"}, nil
}

// sendAgainAfter is how long the mailed code must have had to arrive.
const sendAgainAfter = time.Minute

func (s *Service) sendVerification(ctx context.Context, address string, now time.Time) error {
	email, _ := normalEmail(address)
	hash, err := s.secrets.emailHash(ctx, email)
	if err != nil {
		return err
	}
	state, known := s.known.byEmail(hash)
	if !known || state.Verified() || !s.config.SMTP.Set() || now.Sub(state.VerifySince) < sendAgainAfter {
		return nil
	}
	p, err := s.profileOf(ctx, state)
	if err != nil {
		return err
	}
	code := newCode()
	if _, err := s.change(ctx, state.ID, operator.SendVerification{VerifySHA256: sha256.Sum256([]byte(code))}); err != nil {
		return err
	}
	s.mails.Put(verification(p.email, code))
	return nil
}
