package identity

import (
	"context"
	"errors"
	"sync"
	"time"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/identity/operator"
	"github.com/slipway-paas/slipway/services/identity/totp"
)

// EnrollTotp implements identityv1.AccountServiceServer.
func (s accounts) EnrollTotp(ctx context.Context, in *identityv1.EnrollTotpRequest) (*identityv1.EnrollTotpResponse, error) {
	_, state, err := s.account(ctx)
	if err != nil {
		return nil, err
	}
	res, err := s.enroll(ctx, state, in)
	return res, s.answer(ctx, "propose a second factor", err)
}

func (s *Service) enroll(ctx context.Context, state operator.State, in *identityv1.EnrollTotpRequest) (*identityv1.EnrollTotpResponse, error) {
	if err := s.confirm(ctx, state, in.GetPassword(), "password"); err != nil {
		return nil, err
	}
	p, err := s.profileOf(ctx, state)
	if err != nil {
		return nil, err
	}
	secret, url, err := totp.Generate(p.email)
	if err != nil {
		return nil, err
	}
	sealed, err := s.seal(ctx, s.known.home(state.ID), map[string]string{"secret": secret})
	if err != nil {
		return nil, err
	}
	if _, err := s.change(ctx, state.ID, operator.EnrollTotp{Secret: sealed}); err != nil {
		return nil, err
	}
	return &identityv1.EnrollTotpResponse{Secret: secret, OtpauthUrl: url}, nil
}

// ConfirmTotp implements identityv1.AccountServiceServer.
func (s accounts) ConfirmTotp(ctx context.Context, in *identityv1.ConfirmTotpRequest) (*identityv1.ConfirmTotpResponse, error) {
	_, state, err := s.account(ctx)
	if err != nil {
		return nil, err
	}
	if state.Totp.Secret == nil || state.Totp.Confirmed {
		return nil, s.answer(ctx, "confirm a second factor", operator.ErrSecondFactor)
	}
	step, right, err := s.matchTotp(ctx, state, in.GetCode())
	if err != nil {
		return nil, s.answer(ctx, "confirm a second factor", err)
	}
	if !right {
		return nil, problem.Validation([]problem.Field{{Field: "code", Message: "is wrong; check the clock of the device that shows it"}})
	}
	codes, hashes := totp.Recovery()
	if _, err := s.change(ctx, state.ID, operator.ConfirmTotp{Recovery: hashes, Step: step}); err != nil {
		return nil, s.answer(ctx, "confirm a second factor", err)
	}
	return &identityv1.ConfirmTotpResponse{RecoveryCodes: codes}, nil
}

// DisableTotp implements identityv1.AccountServiceServer.
func (s accounts) DisableTotp(ctx context.Context, in *identityv1.DisableTotpRequest) (*identityv1.DisableTotpResponse, error) {
	_, state, err := s.account(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.disable(ctx, state, in); err != nil {
		return nil, s.answer(ctx, "take a second factor away", err)
	}
	return &identityv1.DisableTotpResponse{Message: "The second factor is gone"}, nil
}

func (s *Service) disable(ctx context.Context, state operator.State, in *identityv1.DisableTotpRequest) error {
	if err := s.confirm(ctx, state, in.GetPassword(), "password"); err != nil {
		return err
	}
	if state.Totp.Confirmed {
		_, err := s.spendCode(ctx, state, in.GetCode())
		if errors.Is(err, operator.ErrCode) {
			return problem.Validation([]problem.Field{{Field: "code", Message: "is wrong, or was used already"}})
		}
		if err != nil {
			return err
		}
	}
	_, err := s.change(ctx, state.ID, operator.DisableTotp{})
	return err
}

const (
	// freeGuesses of codes may be wrong in a row before each next one waits.
	freeGuesses = 5
	guessWait   = 30 * time.Second
	// maxGuessed bounds how many accounts are counted for.
	maxGuessed = 10_000
)

// guesses slows down who tries codes or passwords on one account. The first factor of a
// login is not counted: nobody may lock others out; limits by address are the gateway's.
type guesses struct {
	mu  sync.Mutex
	got map[string]guess
}

type guess struct {
	wrong int
	last  time.Time
}

func newGuesses() *guesses { return &guesses{got: map[string]guess{}} }

// wait is how long the next guess must wait; 0 for not.
func (g *guesses) wait(id string, now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	got := g.got[id]
	if got.wrong < freeGuesses {
		return 0
	}
	return max(0, got.last.Add(guessWait).Sub(now))
}

func (g *guesses) right(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.got, id)
}

func (g *guesses) wrong(id string, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.got) >= maxGuessed {
		clear(g.got)
	}
	got := g.got[id]
	if now.Sub(got.last) > 30*guessWait {
		got = guess{}
	}
	g.got[id] = guess{wrong: got.wrong + 1, last: now}
}
