package seal_test

import (
	"errors"
	"os"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/libs/internal/natstest"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/subjects"
)

func TestALostMasterKeyIsNotReplacedWhileAnythingIsSealedWithIt(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	js := server.Connect()
	server.Bucket(js, jetstream.KeyValueConfig{Bucket: subjects.BucketKeys})
	keys, err := js.KeyValue(t.Context(), subjects.BucketKeys)
	if err != nil {
		t.Fatal(err)
	}
	path := newMaster(t)
	unlock := func() *seal.Sealer {
		t.Helper()
		s, err := seal.Unlock(t.Context(), seal.From{File: path}, keys)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	lose := func() {
		t.Helper()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	unlock()
	lose()
	a := subjects.Of("acme", subjects.Deployment, "d1")
	s := unlock() // nothing was sealed
	mustSeal(t, s, a)
	lose()
	if _, err := seal.Unlock(t.Context(), seal.From{File: path}, keys); !errors.Is(err, seal.ErrMasterLost) {
		t.Fatalf("unlocked with %v", err)
	}
	if err := s.Destroy(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	unlock()
}
