package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/jsm.go"
	"github.com/nats-io/jsm.go/api"
)

// What a copied stream is on disk, by jsm.go.
const (
	snapshotData = "stream.tar.s2"
	snapshotMeta = "backup.json"
)

// answerWithin bounds the server's answers about one stream.
const answerWithin = 30 * time.Second

// snapshot copies a stream as it is at one moment, block by block: sequences, times
// and headers are the messages' own. The server checks every block first.
func snapshot(ctx context.Context, nc *connection, name, dir string) error {
	manager, err := jsm.New(nc, jsm.WithTimeout(answerWithin))
	if err != nil {
		return fmt.Errorf("copy the stream %s: %w", name, err)
	}
	stream, err := manager.LoadStream(name)
	if err != nil {
		return fmt.Errorf("copy the stream %s: %w", name, err)
	}
	if _, err = stream.SnapshotToDirectory(ctx, dir, jsm.SnapshotHealthCheck()); err == nil {
		err = ctx.Err() // a copy that was cut off is no error to the library
	}
	if err != nil {
		return fmt.Errorf("copy the stream %s: %w", name, err)
	}
	return nil
}

// restoreStream makes the stream again on a server that does not have it.
func restoreStream(ctx context.Context, nc *connection, name, dir string, replicas int) error {
	failed := func(err error) error { return fmt.Errorf("restore the stream %s: %w", name, err) }
	manager, err := jsm.New(nc, jsm.WithTimeout(answerWithin))
	if err != nil {
		return failed(err)
	}
	known, err := manager.IsKnownStream(name)
	if err != nil {
		return failed(err)
	}
	if known {
		return failed(errors.New("the server has a stream of that name"))
	}
	config, err := configOf(dir)
	if err != nil {
		return failed(err)
	}
	config.Replicas, config.Placement = replicas, nil
	if _, _, err := manager.RestoreSnapshotFromDirectory(ctx, name, dir, jsm.RestoreConfiguration(config)); err != nil {
		return failed(err)
	}
	return nil
}

func configOf(dir string) (api.StreamConfig, error) {
	text, err := os.ReadFile(filepath.Join(dir, snapshotMeta))
	if err != nil {
		return api.StreamConfig{}, err
	}
	var meta struct {
		Config api.StreamConfig `json:"config"`
	}
	if err := json.Unmarshal(text, &meta); err != nil {
		return api.StreamConfig{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return meta.Config, nil
}
