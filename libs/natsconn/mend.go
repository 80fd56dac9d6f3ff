package natsconn

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

// ErrNotWritable is returned by Embedded's Ready and Writable when the store's disk takes no
// writes: it is full, or broken. What was acknowledged before is there.
var ErrNotWritable = errors.New("the event log cannot be written")

const (
	// proveEvery is how often a write is proved, retryEvery how often while it fails,
	// and proveLeast how soon again when the server says that something failed, which
	// strangers can make it do.
	proveEvery = 5 * time.Second
	retryEvery = time.Second
	proveLeast = 250 * time.Millisecond
	// proofSize is what is written, in bytes: little, as it wears the disk. Before the
	// server is restarted roomSize must fit, so that it does not fail again at once.
	proofSize = 4 << 10
	roomSize  = 1 << 20
	// restartFirst and restartMost bound the wait before the server is restarted
	// once more, when restarting it did not help.
	restartFirst = time.Second
	restartMost  = time.Minute
)

// Writable returns what Run last found out, without asking again: nil, or an
// ErrNotWritable.
func (e *Embedded) Writable() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.trouble
}

// Run proves every few seconds that the store can be written, says so in Ready, and
// mends what a full disk leaves behind: after a failed write the server refuses every
// further one until it has read its store anew. So when there is room again, Run
// restarts the server in place; its clients connect again by themselves. Within a second
// it knows the key of a node that is new in the directory of keys, and lets go of one
// whose key file was removed. Run returns nil when ctx ends.
func (e *Embedded) Run(ctx context.Context) error {
	m := &mender{Embedded: e, wait: backoff.NewExponentialBackOff()}
	m.wait.InitialInterval, m.wait.MaxInterval = restartFirst, restartMost
	keys := time.NewTicker(keysEvery)
	defer keys.Stop()
	for {
		next := proveEvery
		if m.look(ctx) != nil {
			next = retryEvery
		}
		if !sleep(ctx, proveLeast) {
			return nil
		}
		if !e.rest(ctx, next, keys.C) {
			return nil
		}
	}
}

// rest waits that long, or until the server says that something failed, and looks after
// the keys meanwhile. It returns false when ctx has ended.
func (e *Embedded) rest(ctx context.Context, atMost time.Duration, keys <-chan time.Time) bool {
	late := time.NewTimer(atMost)
	defer late.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-late.C:
			return true
		case <-e.logger.erred:
			return true
		case <-keys:
			e.takeUpKeys(ctx)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// mender is what Run remembers.
type mender struct {
	*Embedded
	wait *backoff.ExponentialBackOff
	// notBefore is when the server may be restarted again.
	notBefore time.Time
}

// look finds out whether the store can be written, and does what helps.
func (m *mender) look(ctx context.Context) error {
	trouble := prove(m.config.StoreDir, proofSize)
	if trouble == nil {
		trouble = refusing(m.current())
		if trouble == nil && time.Since(m.notBefore) > restartMost {
			m.wait.Reset()
		}
	}
	m.tell(ctx, trouble)
	if trouble == nil || time.Now().Before(m.notBefore) || prove(m.config.StoreDir, roomSize) != nil || refusing(m.current()) == nil {
		return trouble
	}
	m.notBefore = time.Now().Add(m.wait.NextBackOff())
	trouble = m.restart(ctx)
	m.tell(ctx, trouble)
	return trouble
}

// restart lets the server read its store anew. Nothing acknowledged is lost: it is on
// the disk. What was refused was never acknowledged.
func (m *mender) restart(ctx context.Context) error {
	m.config.Log.WarnContext(ctx, "the disk takes writes again: restarting the embedded NATS server, which still refuses them")
	old := m.current()
	old.Shutdown()
	old.WaitForShutdown()
	if err := m.start(); err != nil {
		return fmt.Errorf("%w: %w", ErrNotWritable, err)
	}
	if err := m.provision(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrNotWritable, err)
	}
	return refusing(m.current())
}

// provision makes the streams that are only in memory, which the server before took
// with it.
func (m *mender) provision(ctx context.Context) error {
	nc, err := Connect(Config{
		Server: m.Embedded, SeedFile: m.SeedFile(RolePlatform), Role: RolePlatform, Name: "mending", Log: m.config.Log,
	})
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return Provision(ctx, js, 1)
}

// tell keeps what Ready says, and logs when it changes.
func (e *Embedded) tell(ctx context.Context, trouble error) {
	e.mu.Lock()
	before := e.trouble
	e.trouble = trouble
	e.mu.Unlock()
	switch {
	case trouble != nil && (before == nil || before.Error() != trouble.Error()):
		e.config.Log.ErrorContext(ctx, "the event log cannot be written: commands are refused until it can", "error", trouble)
	case trouble == nil && before != nil:
		e.config.Log.InfoContext(ctx, "the event log can be written again")
	}
}

// prove writes a file beside the streams, syncs it and removes it.
func prove(dir string, size int) error {
	file, err := os.OpenFile(filepath.Join(dir, ".write-proof"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return notWritable(err)
	}
	defer func() { _ = os.Remove(file.Name()) }() // a leftover is small, and written over
	_, err = file.Write(bytes.Repeat([]byte{1}, size))
	if err == nil {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return notWritable(err)
	}
	return nil
}

func notWritable(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: its disk is full: %w", ErrNotWritable, err)
	}
	return fmt.Errorf("%w: %w", ErrNotWritable, err)
}

// refusing asks the server whether one of its streams refuses writes since one failed.
func refusing(ns *server.Server) error {
	if !ns.Running() || !ns.JetStreamEnabled() {
		return fmt.Errorf("%w: the embedded NATS server has stopped its streams", ErrNotWritable)
	}
	// The server tells this by HTTP only; nothing listens here.
	var answer healthAnswer
	ns.HandleHealthz(&answer, &http.Request{Method: http.MethodGet, URL: &url.URL{RawQuery: "details=true"}})
	var health server.HealthStatus
	if err := json.Unmarshal(answer.body.Bytes(), &health); err != nil {
		return fmt.Errorf("%w: read the server's health: %w", ErrNotWritable, err)
	}
	for _, e := range health.Errors {
		// Others, such as a stream that is just being made, do not last or are not
		// mended by a restart.
		if strings.Contains(e.Error, "write error") {
			return fmt.Errorf("%w: %s", ErrNotWritable, e.Error)
		}
	}
	return nil
}

// healthAnswer is an http.ResponseWriter that keeps the body.
type healthAnswer struct {
	header http.Header
	body   bytes.Buffer
}

func (a *healthAnswer) Header() http.Header {
	if a.header == nil {
		a.header = http.Header{}
	}
	return a.header
}

func (a *healthAnswer) Write(b []byte) (int, error) { return a.body.Write(b) }
func (a *healthAnswer) WriteHeader(int)             {}
