package identity

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/rpc"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// before is what came of the call when it was made before, under the same command ID.
func before[S, C any](ctx context.Context, h *decider.Handler[S, C], a subjects.Aggregate) (r decider.Result[S], made bool, err error) {
	command := rpc.CommandID(ctx)
	if command == "" {
		return r, false, nil
	}
	if r, made, err = h.Written(ctx, a, command); err != nil {
		return r, false, fmt.Errorf("look for an earlier attempt: %w", err)
	}
	return r, made, nil
}

// random are 256 bits for a secret. A call that is made again has the same ones, because
// they are told once and only their hash is kept: those who lack identity's own key
// cannot tell them from random, nor make them of the command ID, which is in the log.
func (k *secrets) random(ctx context.Context, use, owner string) ([32]byte, error) {
	command := rpc.CommandID(ctx)
	if command == "" {
		var raw [32]byte
		// crypto/rand.Read never fails: it ends the program when the system has no randomness.
		_, _ = rand.Read(raw[:])
		return raw, nil
	}
	prf, _, err := k.open(ctx)
	if err != nil {
		return [32]byte{}, err
	}
	return prf.Sum(use, owner+"\x00"+command)
}
