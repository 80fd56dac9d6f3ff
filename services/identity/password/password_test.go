package password_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/services/identity/password"
)

// older is "correct horse" with fewer passes, as another program made it.
const older = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$"

func TestAPasswordIsKnownByItsHash(t *testing.T) {
	t.Parallel()
	h := password.NewHasher(2, 8)
	first, err := h.Hash(t.Context(), "correct horse")
	if err != nil || !strings.HasPrefix(first, "$argon2id$v=19$m=19456,t=2,p=1$") || strings.Contains(first, "horse") {
		t.Fatalf("%s, %v", first, err)
	}
	if second, err := h.Hash(t.Context(), "correct horse"); err != nil || second == first {
		t.Errorf("the same hash twice, or %v", err)
	}
	for given, want := range map[string]bool{"correct horse": true, "Correct horse": false, "": false, "correct horse ": false} {
		if right, stale, err := h.Verify(t.Context(), first, given); right != want || stale || err != nil {
			t.Errorf("%q: %v, %v, %v", given, right, stale, err)
		}
	}
}

func TestAHashOfOtherParametersIsStale(t *testing.T) {
	t.Parallel()
	h := password.NewHasher(1, 3)
	if right, stale, err := h.Verify(t.Context(), older+strings.Repeat("A", 43), "correct horse"); right || !stale || err != nil {
		t.Errorf("%v, %v, %v", right, stale, err)
	}
	for _, broken := range []string{"", "x", older, "$argon2i$v=19$m=64,t=1,p=1$c2FsdA$" + strings.Repeat("A", 43), "$argon2id$v=19$m=999999999,t=1,p=1$c2FsdA$" + strings.Repeat("A", 43)} {
		if _, _, err := h.Verify(t.Context(), broken, "x"); !errors.Is(err, password.ErrUnreadable) {
			t.Errorf("%q: %v", broken, err)
		}
	}
}

func TestNobodyTakesAsLongAsSomebody(t *testing.T) {
	h := password.NewHasher(1, 3)
	hash, err := h.Hash(t.Context(), "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	// The least of many, in turns: the machine has other work.
	somebody, nobody := time.Hour, time.Hour
	for range 10 {
		begun := time.Now()
		if _, _, err := h.Verify(t.Context(), hash, "wrong"); err != nil {
			t.Fatal(err)
		}
		between := time.Now()
		if err := h.VerifyNobody(t.Context(), "wrong"); err != nil {
			t.Fatal(err)
		}
		somebody, nobody = min(somebody, between.Sub(begun)), min(nobody, time.Since(between))
	}
	if nobody < somebody/4 || nobody > somebody*4 {
		t.Errorf("nobody takes %v, somebody %v", nobody, somebody)
	}
}

func TestPasswordsWaitForTheirTurnAndNotForEver(t *testing.T) {
	t.Parallel()
	h := password.NewHasher(1, 3)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	busy := make(chan error, 20)
	for range cap(busy) {
		go func() {
			_, err := h.Hash(t.Context(), "x")
			busy <- err
		}()
	}
	refused := 0
	for range cap(busy) {
		if err := <-busy; errors.Is(err, password.ErrBusy) {
			refused++
		} else if err != nil {
			t.Error(err)
		}
	}
	if refused == 0 {
		t.Error("20 at once were all let in")
	}
	if _, err := h.Hash(t.Context(), "x"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	for range 20 {
		// A turn may be free; then the end of the context does not matter.
		if _, err := h.Hash(gone, "x"); errors.Is(err, context.Canceled) {
			return
		}
	}
	t.Error("who went away was served each time")
}
