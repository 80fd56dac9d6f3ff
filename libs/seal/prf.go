package seal

import (
	"context"
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/prf"

	"github.com/slipway-paas/slipway/libs/subjects"
)

// PRF turns inputs into outputs that only who has the key can foretell, always the
// same ones for the same input: to look up what must not be written down.
type PRF struct{ set *prf.Set }

// PRF returns the aggregate's own one, whose key is made when it has none. It may not be
// an aggregate that values are sealed for. Errors: ErrDestroyed, ErrUnreadable, the key
// store's.
func (s *Sealer) PRF(ctx context.Context, a subjects.Aggregate) (*PRF, error) {
	wrapped, err := s.wrapped(ctx, a, prf.HKDFSHA256PRFKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("open the key of %s: %w", a, err)
	}
	handle, err := s.unwrapped(ctx, a, wrapped)
	if err != nil {
		return nil, err
	}
	set, err := prf.NewPRFSet(handle)
	if err != nil {
		return nil, fmt.Errorf("use the key of %s: %w", a, err)
	}
	return &PRF{set: set}, nil
}

// Sum is 32 bytes for that input of that use; uses do not meet.
func (p *PRF) Sum(use, input string) ([32]byte, error) {
	out, err := p.set.ComputePrimaryPRF([]byte(use+"\x00"+input), 32)
	if err != nil {
		return [32]byte{}, fmt.Errorf("compute a keyed hash: %w", err)
	}
	if len(out) != 32 {
		return [32]byte{}, errors.New("compute a keyed hash: it is too short")
	}
	return [32]byte(out), nil
}
