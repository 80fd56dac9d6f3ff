package backup

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/libs/subjects"
)

// destroyed is the event after which a deployment needs its data key no more.
const destroyed = "DeploymentDestroyed"

// readKeys returns every wrapped data key.
func readKeys(ctx context.Context, js jetstream.JetStream) (map[string][]byte, error) {
	failed := func(err error) (map[string][]byte, error) { return nil, fmt.Errorf("read the data keys: %w", err) }
	bucket, err := js.KeyValue(ctx, subjects.BucketKeys)
	if err != nil {
		return failed(err)
	}
	watcher, err := bucket.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return failed(err)
	}
	defer watcher.Stop() //nolint:errcheck // nothing is left to read
	keys := map[string][]byte{}
	for {
		select {
		case entry, ok := <-watcher.Updates():
			if !ok {
				return failed(errors.New("the server went away"))
			}
			if entry == nil { // these were all
				return keys, nil
			}
			keys[entry.Key()] = entry.Value()
		case <-ctx.Done():
			return failed(ctx.Err())
		}
	}
}

// lateKeys are those of before that the copied bucket has no longer, though the
// copied log still needs them.
func lateKeys(ctx context.Context, restored jetstream.JetStream, before map[string][]byte) (map[string][]byte, error) {
	after, err := readKeys(ctx, restored)
	if err != nil {
		return nil, err
	}
	log, err := restored.Stream(ctx, subjects.StreamEvents)
	if err != nil {
		return nil, fmt.Errorf("look for destroyed deployments: %w", err)
	}
	var late map[string][]byte
	for key, wrapped := range before {
		if _, ok := after[key]; ok {
			continue
		}
		parts := strings.Split(key, ".")
		if len(parts) != 3 {
			return nil, fmt.Errorf("%q is no data key's name", key)
		}
		_, err := log.GetLastMsgForSubject(ctx, subjects.Of(parts[0], parts[1], parts[2]).Event(destroyed))
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound):
			if late == nil {
				late = map[string][]byte{}
			}
			late[key] = wrapped
		case err != nil:
			return nil, fmt.Errorf("look for destroyed deployments: %w", err)
		}
	}
	return late, nil
}

// putKeys puts late keys where the restored bucket says that they are destroyed.
func putKeys(ctx context.Context, js jetstream.JetStream, late map[string][]byte) error {
	if len(late) == 0 {
		return nil
	}
	bucket, err := js.KeyValue(ctx, subjects.BucketKeys)
	if err != nil {
		return fmt.Errorf("restore the data keys: %w", err)
	}
	for key, wrapped := range late {
		if _, err := bucket.Put(ctx, key, wrapped); err != nil {
			return fmt.Errorf("restore the data keys: %w", err)
		}
	}
	return nil
}
