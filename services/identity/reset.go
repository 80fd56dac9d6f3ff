package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/identity/mail"
	"github.com/slipway-paas/slipway/services/identity/operator"
)

// maxLater bounds the errands that wait; laterTimeout one of them.
const (
	maxLater     = 64
	laterTimeout = 10 * time.Second
)

// later runs an errand behind the back of who asks: how long the answer takes tells
// nothing of whether there was something to do.
func (s *Service) later(errand func(context.Context) error) error {
	select {
	case s.errands <- errand:
		return nil
	default:
		return problem.Unavailable("Too many people ask for codes at once; try again in a minute.", time.Minute)
	}
}

// runErrands runs one after the other until ctx ends.
func (s *Service) runErrands(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case errand := <-s.errands:
			within, cancel := context.WithTimeout(ctx, laterTimeout)
			if err := errand(within); err != nil {
				s.deps.Log.ErrorContext(ctx, "a code was not mailed", "error", err)
			}
			cancel()
		}
	}
}

// ForgotPassword implements identityv1.AccountServiceServer. It says the same, and takes
// as long, for every address.
func (s accounts) ForgotPassword(_ context.Context, in *identityv1.ForgotPasswordRequest) (*identityv1.ForgotPasswordResponse, error) {
	if s.Ready() != nil {
		return nil, starting()
	}
	if !s.config.SMTP.Set() {
		return nil, problem.InvalidState("This platform sends no mail, so that it cannot reset passwords; ask who runs it.")
	}
	now := s.deps.Now()
	if err := s.later(func(ctx context.Context) error { return s.sendReset(ctx, in.GetEmail(), now) }); err != nil {
		return nil, err
	}
	return &identityv1.ForgotPasswordResponse{Message: "If the address has an account, a code is on its way"}, nil
}

func (s *Service) sendReset(ctx context.Context, address string, now time.Time) error {
	email, _ := normalEmail(address)
	hash, err := s.secrets.emailHash(ctx, email)
	if err != nil {
		return err
	}
	state, known := s.known.byEmail(hash)
	if !known || !state.Verified() || now.Sub(state.ResetSince) < sendAgainAfter {
		return nil
	}
	p, err := s.profileOf(ctx, state)
	if err != nil {
		return err
	}
	code := newCode()
	if _, err := s.change(ctx, state.ID, operator.SendReset{SHA256: sha256.Sum256([]byte(code))}); err != nil {
		return err
	}
	s.mails.Put(mail.Message{To: p.email, Subject: "A new password for Slipway",
		Text: "Somebody, perhaps you, forgot the password of this address at Slipway.\nThis code sets another one. It is good for an hour, once:\n\n    " + code +
			"\n\nSend it to POST /api/v1/auth/password/reset as code, with your address as email and the new password as new_password.\nIf it was not you, nothing is to be done.\n"})
	return nil
}

// ResetPassword implements identityv1.AccountServiceServer. A wrong code says the same
// whether there is an account or not, and is told before any work is done.
func (s accounts) ResetPassword(ctx context.Context, in *identityv1.ResetPasswordRequest) (*identityv1.ResetPasswordResponse, error) {
	if s.Ready() != nil {
		return nil, starting()
	}
	var faults fields
	faults.password("new_password", in.GetNewPassword())
	if err := faults.err(); err != nil {
		return nil, err
	}
	if err := s.resetPassword(ctx, in); err != nil {
		return nil, s.answer(ctx, "reset a password", err)
	}
	return &identityv1.ResetPasswordResponse{Message: "The password is set, and every older session and token has ended; log in now"}, nil
}

func (s *Service) resetPassword(ctx context.Context, in *identityv1.ResetPasswordRequest) error {
	wrong := problem.Validation([]problem.Field{{Field: "code", Message: "is wrong, used or older than an hour; ask for another at /api/v1/auth/password/forgot"}})
	email, _ := normalEmail(in.GetEmail())
	hash, err := s.secrets.emailHash(ctx, email)
	if err != nil {
		return err
	}
	code := sha256.Sum256([]byte(strings.ToUpper(strings.TrimSpace(in.GetCode()))))
	state, _ := s.known.byEmail(hash)
	if !state.Resets(code, s.deps.Now()) {
		return wrong
	}
	sealed, err := s.sealPassword(ctx, state, in.GetNewPassword())
	if err != nil {
		return err
	}
	_, err = s.change(ctx, state.ID, operator.ResetPassword{SHA256: code, Password: sealed})
	if errors.Is(err, operator.ErrCode) {
		return wrong
	}
	if err != nil {
		return fmt.Errorf("set a password: %w", err)
	}
	s.guesses.right(state.ID)
	return nil
}
