package seal_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/libs/internal/natstest"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/subjects"
)

var (
	ours   = subjects.Of("acme", subjects.Deployment, "d1")
	theirs = subjects.Of("other", subjects.Deployment, "d1")
	values = map[string]string{"TOKEN": "hunter2 ☂", "EMPTY": "", "PORT": "8080"}
)

// stores are all implementations of seal.KeyStore.
func stores(t *testing.T) map[string]func(*testing.T) seal.KeyStore {
	t.Helper()
	return map[string]func(*testing.T) seal.KeyStore{
		"memory": func(*testing.T) seal.KeyStore { return seal.NewMemory() },
		"key-value": func(t *testing.T) seal.KeyStore {
			server := natstest.Start(t)
			js := server.Connect()
			server.Bucket(js, jetstream.KeyValueConfig{Bucket: subjects.BucketKeys})
			kv, err := js.KeyValue(t.Context(), subjects.BucketKeys)
			if err != nil {
				t.Fatal(err)
			}
			return seal.NewKV(kv)
		},
	}
}

// eachStore runs a test against every implementation.
func eachStore(t *testing.T, test func(*testing.T, seal.KeyStore)) {
	t.Helper()
	for name, open := range stores(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

func newMaster(t *testing.T) string { return filepath.Join(t.TempDir(), "master.key") }

func sealer(t *testing.T, path string, keys seal.KeyStore) *seal.Sealer {
	t.Helper()
	master, err := seal.Master(path)
	if err != nil {
		t.Fatal(err)
	}
	return seal.New(master, keys)
}

func mustSeal(t *testing.T, s *seal.Sealer, a subjects.Aggregate) []byte {
	t.Helper()
	names, sealed, err := s.Seal(t.Context(), a, values)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"EMPTY", "PORT", "TOKEN"}, names); diff != "" {
		t.Errorf("names, - wanted + got:\n%s", diff)
	}
	return sealed
}

func TestAKeyStoreKeepsTheFirstKeyUntilItIsDestroyed(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, keys seal.KeyStore) {
		if _, err := keys.Get(t.Context(), ours); !errors.Is(err, seal.ErrNoKey) {
			t.Errorf("before: %v", err)
		}
		if err := keys.Create(t.Context(), ours, []byte("first")); err != nil {
			t.Fatal(err)
		}
		if err := keys.Create(t.Context(), ours, []byte("second")); !errors.Is(err, seal.ErrKeyExists) {
			t.Errorf("a second key: %v", err)
		}
		if got, err := keys.Get(t.Context(), ours); string(got) != "first" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if err := keys.Replace(t.Context(), ours, []byte("second"), []byte("other")); !errors.Is(err, seal.ErrKeyChanged) {
			t.Errorf("replaced what it is not: %v", err)
		}
		if err := keys.Replace(t.Context(), ours, []byte("first"), []byte("anew")); err != nil {
			t.Errorf("replace: %v", err)
		}
		if got, err := keys.Get(t.Context(), ours); string(got) != "anew" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if all, err := keys.All(t.Context()); err != nil || len(all) != 1 || all[0] != ours {
			t.Errorf("all are %v, %v", all, err)
		}
		if _, err := keys.Get(t.Context(), theirs); !errors.Is(err, seal.ErrNoKey) {
			t.Errorf("another aggregate's: %v", err)
		}
		for range 2 {
			if err := keys.Destroy(t.Context(), ours); err != nil {
				t.Errorf("destroy: %v", err)
			}
		}
		if _, err := keys.Get(t.Context(), ours); !errors.Is(err, seal.ErrNoKey) {
			t.Errorf("after: %v", err)
		}
		if all, err := keys.All(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("all are %v, %v", all, err)
		}
		if err := keys.Replace(t.Context(), ours, []byte("anew"), []byte("back")); !errors.Is(err, seal.ErrKeyChanged) {
			t.Errorf("replaced what is destroyed: %v", err)
		}
		if err := keys.Create(t.Context(), ours, []byte("third")); !errors.Is(err, seal.ErrKeyExists) {
			t.Errorf("a key after the destroyed one: %v", err)
		}
	})
}

func TestWhatIsSealedOpensForItsAggregateAlone(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, keys seal.KeyStore) {
		s := sealer(t, newMaster(t), keys)
		sealed := mustSeal(t, s, ours)
		for _, secret := range []string{"hunter2", "TOKEN", "8080"} {
			if bytes.Contains(sealed, []byte(secret)) {
				t.Errorf("%q can be read in what is sealed", secret)
			}
		}
		got, err := s.Open(t.Context(), ours, sealed)
		if diff := cmp.Diff(values, got); diff != "" || err != nil {
			t.Errorf("opened (%v), - wanted + got:\n%s", err, diff)
		}
		mustSeal(t, s, theirs)
		if _, err := s.Open(t.Context(), theirs, sealed); !errors.Is(err, seal.ErrUnreadable) {
			t.Errorf("for another aggregate: %v", err)
		}
		sealed[len(sealed)/2] ^= 1
		if _, err := s.Open(t.Context(), ours, sealed); !errors.Is(err, seal.ErrUnreadable) {
			t.Errorf("altered: %v", err)
		}
	})
}

func TestDestroyedIsForEver(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, keys seal.KeyStore) {
		s := sealer(t, newMaster(t), keys)
		sealed, others := mustSeal(t, s, ours), mustSeal(t, s, theirs)
		if err := s.Destroy(t.Context(), ours); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Open(t.Context(), ours, sealed); !errors.Is(err, seal.ErrDestroyed) {
			t.Errorf("open: %v", err)
		}
		if _, _, err := s.Seal(t.Context(), ours, values); !errors.Is(err, seal.ErrDestroyed) {
			t.Errorf("seal: %v", err)
		}
		if _, err := s.Open(t.Context(), theirs, others); err != nil {
			t.Errorf("another aggregate's: %v", err)
		}
	})
}

func TestManyWhoSealAtOnceUseOneKey(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, keys seal.KeyStore) {
		s := sealer(t, newMaster(t), keys)
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				_, sealed, err := s.Seal(t.Context(), ours, values)
				if err != nil {
					t.Errorf("seal: %v", err)
					return
				}
				if _, err := s.Open(t.Context(), ours, sealed); err != nil {
					t.Errorf("open: %v", err)
				}
			})
		}
		all.Wait()
	})
}

func TestAKeyMovedToAnotherAggregateDoesNotUnwrap(t *testing.T) {
	t.Parallel()
	keys := seal.NewMemory()
	s := sealer(t, newMaster(t), keys)
	sealed := mustSeal(t, s, ours)
	wrapped, err := keys.Get(t.Context(), ours)
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.Create(t.Context(), theirs, wrapped); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(t.Context(), theirs, sealed); !errors.Is(err, seal.ErrUnreadable) {
		t.Errorf("opened with a moved key: %v", err)
	}
}

func TestValuesThatAreNotTextAreRefused(t *testing.T) {
	t.Parallel()
	s := sealer(t, newMaster(t), seal.NewMemory())
	_, _, err := s.Seal(t.Context(), ours, map[string]string{"SECRET": "\xff-secret"})
	if err == nil || strings.Contains(err.Error(), "-secret") {
		t.Errorf("the error is %v", err)
	}
}

func TestTheMasterKeyIsMadeOnceForItsOwnerAlone(t *testing.T) {
	t.Parallel()
	path, keys := newMaster(t), seal.NewMemory()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := seal.Master(path); err != nil {
				t.Errorf("master: %v", err)
			}
		})
	}
	all.Wait()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() == 0 {
		t.Fatalf("the file is %v, %v", info, err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(left) != 1 {
		t.Errorf("there are %v", left)
	}
	sealed := mustSeal(t, sealer(t, path, keys), ours)
	if _, err := sealer(t, path, keys).Open(t.Context(), ours, sealed); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if _, err := sealer(t, newMaster(t), keys).Open(t.Context(), ours, sealed); !errors.Is(err, seal.ErrUnreadable) {
		t.Errorf("with another master key: %v", err)
	}
}

func TestAMasterKeyThatIsNotOneIsRefused(t *testing.T) {
	t.Parallel()
	for name, file := range map[string]struct {
		content string
		mode    os.FileMode
	}{
		"too short":          {"short", 0o600},
		"readable by others": {strings.Repeat("k", 32), 0o644},
	} {
		path := newMaster(t)
		if err := os.WriteFile(path, []byte(file.content), file.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := seal.Master(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, wanted an error that names the file", name, err)
		}
	}
	if _, err := seal.Master(filepath.Join(t.TempDir(), "nowhere", "key")); err == nil {
		t.Error("a key in no directory was made")
	}
}
