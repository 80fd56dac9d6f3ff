package idempotency

import (
	"context"
	"fmt"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
)

const (
	// recount is after how long the bucket is asked again how many keys a caller has.
	recount = 30 * time.Second
	// callers bounds of how many that is remembered.
	callers = 4096
)

// room bounds how many keys a caller has: exactly for one gateway, and with several by
// what the others take between two counts.
type room struct {
	js   jetstream.JetStream
	max  int
	now  func() time.Time
	seen *lru.Cache[string, *taken]
}

type taken struct {
	mu    sync.Mutex
	keys  int
	as    time.Time
	known bool
}

func newRoom(js jetstream.JetStream, limit int, now func() time.Time) (*room, error) {
	seen, err := lru.New[string, *taken](callers)
	if err != nil {
		return nil, fmt.Errorf("count keys: %w", err)
	}
	return &room{js: js, max: limit, now: now, seen: seen}, nil
}

// take makes room for one more key. Errors: *problem.Error 429.
func (r *room) take(ctx context.Context, caller string) error {
	t := &taken{}
	if other, ok, _ := r.seen.PeekOrAdd(caller, t); ok {
		t = other
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := r.now(); !t.known || now.Sub(t.as) >= recount {
		keys, err := r.count(ctx, caller)
		if err != nil {
			return err
		}
		t.keys, t.as, t.known = keys, now, true
	}
	if t.keys >= r.max {
		return problem.Limit(fmt.Sprintf("You have used %d Idempotency-Keys within 24 hours, which is the limit; leave the header out, or wait until the oldest is forgotten.", r.max), time.Minute)
	}
	t.keys++
	return nil
}

func (r *room) count(ctx context.Context, caller string) (int, error) {
	stream, err := r.js.Stream(ctx, "KV_"+subjects.BucketAnswers)
	if err != nil {
		return 0, fmt.Errorf("count keys: %w", err)
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(subjects.OfKey(subjects.BucketAnswers, subjects.AnswersOf(caller))))
	if err != nil {
		return 0, fmt.Errorf("count keys: %w", err)
	}
	return len(info.State.Subjects), nil
}
