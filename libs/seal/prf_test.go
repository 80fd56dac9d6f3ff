package seal_test

import (
	"errors"
	"testing"

	"github.com/slipway-paas/slipway/libs/seal"
)

func TestAKeyedHashIsTheSameForWhoHasTheKeyAlone(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, keys seal.KeyStore) {
		path := newMaster(t)
		sum := func(s *seal.Sealer, use, input string) [32]byte {
			t.Helper()
			prf, err := s.PRF(t.Context(), ours)
			if err != nil {
				t.Fatal(err)
			}
			out, err := prf.Sum(use, input)
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
		first := sum(sealer(t, path, keys), "email", "ada@example.com")
		if again := sum(sealer(t, path, keys), "email", "ada@example.com"); again != first {
			t.Error("the same input gave another hash")
		}
		for _, other := range [][2]string{{"email", "bob@example.com"}, {"phone", "ada@example.com"}, {"emaila", "da@example.com"}} {
			if sum(sealer(t, path, keys), other[0], other[1]) == first {
				t.Errorf("%v gave the same hash", other)
			}
		}
		if sum(sealer(t, newMaster(t), seal.NewMemory()), "email", "ada@example.com") == first {
			t.Error("another platform's key gave the same hash")
		}
		if _, err := sealer(t, newMaster(t), keys).PRF(t.Context(), ours); !errors.Is(err, seal.ErrUnreadable) {
			t.Errorf("with another master key: %v", err)
		}
	})
}
