package seal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/nats-io/nats.go/jetstream"
)

// ErrMasterLost is returned by Unlock when keys are kept and the master key that
// wraps them is not there.
var ErrMasterLost = errors.New("the master key is lost")

// Unlock is New with the master key in that file and the data keys in that bucket. It
// makes a master key only while nothing is wrapped with one: a new key would make
// every sealed value unreadable without a word. Errors: ErrMasterLost.
func Unlock(ctx context.Context, path string, keys jetstream.KeyValue) (*Sealer, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		kept, err := keys.Keys(ctx)
		if err != nil && !errors.Is(err, jetstream.ErrNoKeysFound) {
			return nil, fmt.Errorf("look for data keys: %w", err)
		}
		if len(kept) > 0 {
			return nil, fmt.Errorf("%w: %s is not there, and %d environments are sealed with it; restore the file from its backup", ErrMasterLost, path, len(kept))
		}
	}
	master, err := Master(path)
	if err != nil {
		return nil, err
	}
	return New(master, NewKV(keys)), nil
}
