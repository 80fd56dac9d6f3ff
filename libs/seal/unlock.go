package seal

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
	"google.golang.org/protobuf/proto"

	"github.com/slipway-paas/slipway/libs/subjects"
)

// ErrMasterLost is returned by Unlock when keys are kept and the master key that
// wraps them is not there.
var ErrMasterLost = errors.New("the master key is lost")

// maxLooks is how many data keys are tried when any will do.
const maxLooks = 16

// Unlock is New with the master keys from there and the data keys in that bucket. It
// makes a master key only while nothing is wrapped with one: a new key would make
// every sealed value unreadable without a word. Errors: ErrMasterLost.
func Unlock(ctx context.Context, from From, keys jetstream.KeyValue) (*Sealer, error) {
	master, err := from.open(ctx, keys)
	if err != nil {
		return nil, err
	}
	s := New(master, NewKV(keys))
	return s, s.check(ctx)
}

func (f From) open(ctx context.Context, keys jetstream.KeyValue) (*Keyring, error) {
	if f.Keys != "" {
		return Given(f.Keys)
	}
	if _, err := os.Stat(f.File); errors.Is(err, fs.ErrNotExist) {
		kept, err := keys.Keys(ctx)
		if err != nil && !errors.Is(err, jetstream.ErrNoKeysFound) {
			return nil, fmt.Errorf("look for data keys: %w", err)
		}
		if len(kept) > 0 {
			return nil, fmt.Errorf("%w: %s is not there, and %d data keys are wrapped with it; restore the file from its backup", ErrMasterLost, f.File, len(kept))
		}
	}
	return Master(f.File)
}

// check refuses master keys that wrapped nothing that is kept, and those from before
// the last rotation: what they seal others could not read.
func (s *Sealer) check(ctx context.Context) error {
	failed := func(err error) error { return fmt.Errorf("check the master key: %w", err) }
	look := []subjects.Aggregate{checked}
	wrapped, err := s.keys.Get(ctx, checked)
	if errors.Is(err, ErrNoKey) { // never rotated
		all, err := s.keys.All(ctx)
		if err != nil {
			return failed(err)
		}
		look = all[:min(len(all), maxLooks)]
	} else if err != nil {
		return failed(err)
	}
	for _, a := range look {
		if wrapped, err = s.keys.Get(ctx, a); errors.Is(err, ErrNoKey) {
			return nil // destroyed just now, by who could read it
		} else if err != nil {
			return failed(err)
		}
		if _, err := s.unwrapped(ctx, a, wrapped); err == nil || errors.Is(err, ErrDestroyed) {
			return nil
		} else if !errors.Is(err, ErrUnreadable) {
			return failed(err)
		}
	}
	if len(look) == 0 {
		return nil
	}
	what := "the keys that were given"
	if s.master.file != "" {
		what = s.master.file
	}
	return fmt.Errorf("%w: the data keys are wrapped with the master key %s, and in %s there is only %s; give the one that was there last, from its backup",
		ErrMasterLost, wrapper(wrapped), what, strings.Join(s.master.forUnwrapping().names(), ", "))
}

// wrapper names the master key that wraps a data key.
func wrapper(wrapped []byte) string {
	var set tinkpb.EncryptedKeyset
	if err := proto.Unmarshal(wrapped, &set); err != nil || len(set.GetEncryptedKeyset()) <= idSize || set.GetEncryptedKeyset()[0] != named {
		return "unknown"
	}
	return hex.EncodeToString(set.GetEncryptedKeyset()[1 : 1+idSize])
}
