package seal_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/subtle"
	"github.com/tink-crypto/tink-go/v2/keyset"

	"github.com/slipway-paas/slipway/libs/internal/natstest"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// sealed is what was sealed for whom.
type sealed map[subjects.Aggregate][]byte

func sealMany(t *testing.T, s *seal.Sealer, n int) sealed {
	t.Helper()
	all := sealed{}
	for i := range n {
		a := subjects.Of("acme", subjects.Deployment, fmt.Sprintf("d%d", i))
		all[a] = mustSeal(t, s, a)
	}
	return all
}

func (all sealed) opens(t *testing.T, s *seal.Sealer, when string) {
	t.Helper()
	for a, ciphertext := range all {
		if got, err := s.Open(t.Context(), a, ciphertext); err != nil || got["TOKEN"] != values["TOKEN"] {
			t.Errorf("%s, %s: %v, %v", when, a, got, err)
		}
	}
}

func rotate(t *testing.T, s *seal.Sealer) seal.Rotated {
	t.Helper()
	done, err := s.Rotate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func bucket(t *testing.T) jetstream.KeyValue {
	t.Helper()
	server := natstest.Start(t)
	js := server.Connect()
	server.Bucket(js, jetstream.KeyValueConfig{Bucket: subjects.BucketKeys})
	kv, err := js.KeyValue(t.Context(), subjects.BucketKeys)
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

func TestARotationLeavesTheOldMasterKeyGoodForNothing(t *testing.T) {
	t.Parallel()
	kv, path := bucket(t), newMaster(t)
	unlock := func() *seal.Sealer {
		t.Helper()
		s, err := seal.Unlock(t.Context(), seal.From{File: path}, kv)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	rotates, runs := unlock(), unlock() // processes of one platform
	all := sealMany(t, rotates, 5)
	hash := func(s *seal.Sealer) [32]byte {
		t.Helper()
		prf, err := s.PRF(t.Context(), subjects.Of(subjects.Platform, "identity", "keys"))
		if err != nil {
			t.Fatal(err)
		}
		sum, err := prf.Sum("email", "ada@example.com")
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	before, old := hash(runs), read(t, path)
	all.opens(t, runs, "before")

	done := rotate(t, rotates)
	if done.Resumed || done.DataKeys != 6 || done.Rewrapped != 6 || done.Unreadable != 0 || len(done.Dropped) != 1 || done.Dropped[0] == done.Key {
		t.Errorf("the rotation did %+v", done)
	}
	now := read(t, path)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 || bytes.Contains(now, bytes.TrimSpace(old)) {
		t.Errorf("the file is %v, %v, or has the old key still", info, err)
	}
	for name, s := range map[string]*seal.Sealer{"who rotated": rotates, "who ran": runs, "who starts": unlock()} {
		all.opens(t, s, name)
		if hash(s) != before {
			t.Errorf("%s has other keyed hashes", name)
		}
	}
	// What one seals who has not looked since, others open.
	all[theirs] = mustSeal(t, runs, theirs)
	all.opens(t, unlock(), "sealed after")

	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := seal.Unlock(t.Context(), seal.From{File: path}, kv)
	if !errors.Is(err, seal.ErrMasterLost) || !strings.Contains(err.Error(), done.Key) || !strings.Contains(err.Error(), done.Dropped[0]) {
		t.Errorf("with the old master key: %v", err)
	}
	stale, err := seal.Master(path)
	if err != nil {
		t.Fatal(err)
	}
	for a, ciphertext := range all {
		if _, err := seal.New(stale, seal.NewKV(kv)).Open(t.Context(), a, ciphertext); !errors.Is(err, seal.ErrUnreadable) {
			t.Errorf("the old master key opens %s: %v", a, err)
		}
	}
	if err := os.WriteFile(path, now, 0o600); err != nil {
		t.Fatal(err)
	}
	if again := rotate(t, unlock()); again.Resumed || again.Rewrapped != 7 || again.Dropped[0] != done.Key {
		t.Errorf("the second rotation did %+v", again)
	}
	all.opens(t, runs, "after the second rotation")
}

// cut is a key store that fails from the nth change on, as if the process had ended.
type cut struct {
	seal.KeyStore
	left atomic.Int32
}

var errCut = errors.New("cut off")

func (c *cut) Replace(ctx context.Context, a subjects.Aggregate, old, wrapped []byte) error {
	if c.left.Add(-1) < 0 {
		return errCut
	}
	return c.KeyStore.Replace(ctx, a, old, wrapped)
}

func TestARotationGoesOnWhereItWasInterrupted(t *testing.T) {
	t.Parallel()
	for after := range int32(4) {
		path, keys := newMaster(t), seal.NewMemory()
		runs := sealer(t, path, keys)
		all := sealMany(t, runs, 4)
		store := &cut{KeyStore: keys}
		store.left.Store(after)
		if _, err := sealer(t, path, store).Rotate(t.Context()); !errors.Is(err, errCut) {
			t.Fatalf("cut off after %d: %v", after, err)
		}
		all.opens(t, runs, "in the middle")
		all.opens(t, sealer(t, path, keys), "started in the middle")
		more := subjects.Of("acme", subjects.Deployment, "more")
		all[more] = mustSeal(t, runs, more)
		both := read(t, path)
		done := rotate(t, sealer(t, path, keys))
		if !done.Resumed || done.DataKeys != 5 || done.Rewrapped != 4-int(after) || len(done.Dropped) != 1 || !bytes.HasPrefix(both, read(t, path)) {
			t.Errorf("cut off after %d, the next did %+v", after, done)
		}
		all.opens(t, runs, "after the end")
		all.opens(t, sealer(t, path, keys), "started after the end")
	}
}

func TestSealingGoesOnWhileMasterKeysAreRotated(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, keys seal.KeyStore) {
		path := newMaster(t)
		old := sealMany(t, sealer(t, path, keys), 20)
		var all sync.WaitGroup
		var stop atomic.Bool
		made := make([]sealed, 4)
		for w := range made {
			made[w] = sealed{}
			s := sealer(t, path, keys)
			all.Go(func() {
				for i := 0; !stop.Load(); i++ {
					a := subjects.Of("acme", subjects.Deployment, fmt.Sprintf("w%d-%d", w%2, i)) // two make the same
					_, ciphertext, err := s.Seal(t.Context(), a, values)
					if err != nil {
						t.Errorf("seal: %v", err)
						return
					}
					made[w][a] = ciphertext
					old.opens(t, s, "meanwhile")
					if _, err := s.Open(t.Context(), a, ciphertext); err != nil {
						t.Errorf("open what was just sealed: %v", err)
					}
				}
			})
		}
		rotates := sealer(t, path, keys)
		for range 5 {
			if done := rotate(t, rotates); done.Unreadable != 0 {
				t.Errorf("lost: %+v", done)
			}
		}
		stop.Store(true)
		all.Wait()
		fresh := sealer(t, path, keys)
		for _, m := range append(made, old) {
			m.opens(t, fresh, "after all")
		}
	})
}

// late is a key store in which a new key takes as long as a whole rotation.
type late struct {
	seal.KeyStore
	meanwhile func()
}

func (l *late) Create(ctx context.Context, a subjects.Aggregate, wrapped []byte) error {
	l.meanwhile()
	return l.KeyStore.Create(ctx, a, wrapped)
}

func TestADataKeyThatIsMadeDuringAWholeRotationIsNotLost(t *testing.T) {
	t.Parallel()
	path, keys := newMaster(t), seal.NewMemory()
	slow := sealer(t, path, &late{keys, func() { rotate(t, sealer(t, path, keys)) }})
	all := sealed{ours: mustSeal(t, slow, ours)}
	all.opens(t, sealer(t, path, keys), "by another")
}

func TestADestroyedKeyIsNotBroughtBackByARotation(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, keys seal.KeyStore) {
		s := sealer(t, newMaster(t), keys)
		ciphertext := mustSeal(t, s, ours)
		mustSeal(t, s, theirs)
		if err := s.Destroy(t.Context(), ours); err != nil {
			t.Fatal(err)
		}
		if done := rotate(t, s); done.DataKeys != 1 || done.Rewrapped != 1 {
			t.Errorf("the rotation did %+v", done)
		}
		if _, err := s.Open(t.Context(), ours, ciphertext); !errors.Is(err, seal.ErrDestroyed) {
			t.Errorf("open: %v", err)
		}
	})
}

// raced is a key store in which something happens just before a key is replaced.
type raced struct {
	seal.KeyStore
	before func(subjects.Aggregate)
}

func (r *raced) Replace(ctx context.Context, a subjects.Aggregate, old, wrapped []byte) error {
	r.before(a)
	return r.KeyStore.Replace(ctx, a, old, wrapped)
}

func TestAKeyThatIsDestroyedWhileItIsRewrappedStaysDestroyed(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, keys seal.KeyStore) {
		path := newMaster(t)
		s := sealer(t, path, keys)
		ciphertext := mustSeal(t, s, ours)
		store := &raced{keys, func(a subjects.Aggregate) {
			if err := s.Destroy(t.Context(), a); err != nil {
				t.Error(err)
			}
		}}
		if done := rotate(t, sealer(t, path, store)); done.DataKeys != 0 || done.Rewrapped != 0 {
			t.Errorf("the rotation did %+v", done)
		}
		if _, err := s.Open(t.Context(), ours, ciphertext); !errors.Is(err, seal.ErrDestroyed) {
			t.Errorf("open: %v", err)
		}
	})
}

func TestAMasterKeyFromBeforeRotationsIsTakenOver(t *testing.T) {
	t.Parallel()
	path, keys := newMaster(t), seal.NewMemory()
	raw := []byte(strings.Repeat("k", 32))
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	master, err := subtle.NewAESGCM(raw)
	if err != nil {
		t.Fatal(err)
	}
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		t.Fatal(err)
	}
	var wrapped bytes.Buffer
	if err := handle.WriteWithAssociatedData(keyset.NewBinaryWriter(&wrapped), master, []byte(subjects.DataKey(ours))); err != nil {
		t.Fatal(err)
	}
	if err := keys.Create(t.Context(), ours, wrapped.Bytes()); err != nil {
		t.Fatal(err)
	}
	s := sealer(t, path, keys)
	all := sealed{ours: mustSeal(t, s, ours), theirs: mustSeal(t, s, theirs)}
	if done := rotate(t, s); done.Rewrapped != 2 || done.Unreadable != 0 {
		t.Errorf("the rotation did %+v", done)
	}
	all.opens(t, sealer(t, path, keys), "after")
}

func TestMasterKeysThatAreGivenAreRotatedByWhoGivesThem(t *testing.T) {
	t.Parallel()
	kv := bucket(t)
	first, second := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("1", 32))), base64.StdEncoding.EncodeToString([]byte(strings.Repeat("2", 32)))
	unlock := func(given string) (*seal.Sealer, error) {
		return seal.Unlock(t.Context(), seal.From{Keys: given}, kv)
	}
	must := func(given string) *seal.Sealer {
		t.Helper()
		s, err := unlock(given)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := must(first)
	all := sealed{ours: mustSeal(t, s, ours)}
	if _, err := s.Rotate(t.Context()); !errors.Is(err, seal.ErrGiven) {
		t.Errorf("with one key: %v", err)
	}
	if _, err := unlock(second); !errors.Is(err, seal.ErrMasterLost) {
		t.Errorf("with another key alone: %v", err)
	}
	all.opens(t, must(second+","+first), "before")
	if done := rotate(t, must(second+","+first)); done.Rewrapped != 1 || len(done.Old) != 1 || len(done.Dropped) != 0 {
		t.Errorf("the rotation did %+v", done)
	}
	all.opens(t, must(second), "after")
	if _, err := unlock(first); !errors.Is(err, seal.ErrMasterLost) {
		t.Errorf("with the old one alone: %v", err)
	}
	for _, bad := range []string{"short", strings.Repeat("k", 32), first + "," + first, ",", first + "," + first[:20]} {
		if _, err := unlock(bad); err == nil || strings.Contains(err.Error(), bad) {
			t.Errorf("%q was taken, or told: %v", bad, err)
		}
	}
}

func TestWhoHoldsTheMasterKeyKeepsRotationsAway(t *testing.T) {
	t.Parallel()
	path := newMaster(t)
	s := sealer(t, path, seal.NewMemory())
	release, err := seal.Hold(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Rotate(t.Context()); !errors.Is(err, seal.ErrHeld) {
		t.Errorf("rotated, or %v", err)
	}
	if _, err := seal.Hold(path); !errors.Is(err, seal.ErrHeld) {
		t.Errorf("held twice, or %v", err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	rotate(t, s)
}

func TestNothingIsWrappedWhileTheMasterKeyIsAway(t *testing.T) {
	t.Parallel()
	path, keys := newMaster(t), seal.NewMemory()
	s := sealer(t, path, keys)
	all := sealed{ours: mustSeal(t, s, ours)}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	all.opens(t, s, "from memory")
	if _, _, err := s.Seal(t.Context(), theirs, values); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("wrapped a data key with a master key that is lost: %v", err)
	}
}
