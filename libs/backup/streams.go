package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/jsm.go"
	"github.com/nats-io/jsm.go/api"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// What a copied stream is on disk, by jsm.go.
const (
	snapshotData = "stream.tar.s2"
	snapshotMeta = "backup.json"
)

// answerWithin bounds the server's answers about one stream.
const answerWithin = 30 * time.Second

// settleWithin bounds how long a cluster may take until it has leaders, until each of
// its servers knows whom the others listen for, and has a copy of what one restored.
const settleWithin = 5 * time.Minute

// snapshot copies a stream as it is at one moment, block by block: sequences, times
// and headers are the messages' own. The server checks every block first.
func snapshot(ctx context.Context, nc *connection, name, dir string) error {
	manager, err := jsm.New(nc, jsm.WithTimeout(answerWithin))
	if err != nil {
		return fmt.Errorf("copy the stream %s: %w", name, err)
	}
	var stream *jsm.Stream
	// One that is choosing its leader does not answer for a while.
	if err := settled(ctx, func() (err error) {
		if stream, err = manager.LoadStream(name); errors.Is(err, context.DeadlineExceeded) {
			err = errNotThere
		}
		return err
	}); err != nil {
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
	var known bool
	if err := settled(ctx, func() (err error) {
		known, err = manager.IsKnownStream(name)
		return err
	}); err != nil {
		return failed(err)
	}
	if known {
		return failed(errors.New("the server has a stream of that name"))
	}
	request, err := requestOf(dir)
	if err != nil {
		return failed(err)
	}
	request.Config.Replicas, request.Config.Placement = replicas, nil
	if err := upload(ctx, nc, filepath.Join(dir, snapshotData), request); err != nil {
		return failed(err)
	}
	if err := settled(ctx, func() error { return everywhere(manager, name, replicas) }); err != nil {
		return failed(err)
	}
	return nil
}

var errNotThere = errors.New("not every server has it yet")

// everywhere makes sure that the stream has a leader and that every server of it has
// all: reading it may go by any of them.
func everywhere(manager *jsm.Manager, name string, replicas int) error {
	stream, err := manager.LoadStream(name)
	if err != nil {
		return err
	}
	info, err := stream.LatestInformation()
	if err != nil || info.Cluster == nil { // one server alone says nothing of a cluster
		return err
	}
	if info.Cluster.Leader == "" || len(info.Cluster.Replicas) != replicas-1 {
		return errNotThere
	}
	for _, r := range info.Cluster.Replicas {
		if !r.Current || r.Offline || r.Lag > 0 {
			return errNotThere
		}
	}
	return nil
}

// settled tries until nothing is in the way any more that passes by itself.
func settled(ctx context.Context, try func() error) error {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 50*time.Millisecond, 2*time.Second
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := try()
		if err != nil && !passes(err) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(wait), backoff.WithMaxElapsedTime(settleWithin))
	return err
}

// passes says whether a cluster that is starting answers so, having done nothing.
func passes(err error) bool {
	return errors.Is(err, nats.ErrNoResponders) || errors.Is(err, errNotThere) ||
		jsm.IsNatsError(err, uint16(server.JSClusterNotAvailErr)) || jsm.IsNatsError(err, uint16(server.JSClusterNotLeaderErr)) ||
		jsm.IsNatsError(err, uint16(server.JSClusterNoPeersErrF))
}

// requestOf is what a copied stream is restored with.
func requestOf(dir string) (api.JSApiStreamRestoreRequest, error) {
	var request api.JSApiStreamRestoreRequest
	text, err := os.ReadFile(filepath.Join(dir, snapshotMeta))
	if err != nil {
		return request, err
	}
	if err := json.Unmarshal(text, &request); err != nil {
		return request, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return request, nil
}
