// Package idempotency answers a repeated request as the first one was answered. What
// is under way, and what came of it, is in a bucket that all gateways share. The
// record is there before the command is given, with the ID that the command is given
// under: when a gateway dies in between, the next attempt gives the command with the
// same ID, and its owner finds in the log that it is done.
package idempotency

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// Codes of refusals.
const (
	CodeReused   = "idempotency_key_reused"
	CodeUnderWay = "idempotency_key_in_use"
	CodeNotKept  = "answer_not_kept"
)

const (
	// MaxAnswer bounds what is kept of one answer, in bytes.
	MaxAnswer = 64 << 10
	storeTime = 3 * time.Second
	// pollFirst and pollMost are how often an attempt under way is looked at.
	pollFirst = 10 * time.Millisecond
	pollMost  = 250 * time.Millisecond
)

// Request is one request with a key.
type Request struct {
	// Owner is who sends it: an operator, or the platform's own aggregate for those
	// without a token. Answers are sealed with its data key.
	Owner subjects.Aggregate
	// Endpoint is method and path.
	Endpoint string
	// Key is what ParseKey has read.
	Key string
	// Content is all that must be the same in a repeated request.
	Content []byte
}

// Answer is a whole answer.
type Answer struct {
	Status int         `json:"status"`
	Header http.Header `json:"header"`
	Body   []byte      `json:"body"`
}

// final says whether the answer will always be the same. Where the platform failed,
// or others were in the way, the same request may yet succeed.
func (a Answer) final() bool {
	switch a.Status {
	case http.StatusConflict, http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, 499:
		return false
	}
	return a.Status >= 200 && a.Status < http.StatusInternalServerError
}

// refused says that the answer tells that nothing was done.
func (a Answer) refused() bool {
	return a.Status >= 400 && a.Status < http.StatusInternalServerError && a.Status != 499
}

// Config bounds the keeper. Zero values mean defaults.
type Config struct {
	// Keep is how long an answer is given again: 24 h.
	Keep time.Duration
	// Lease is after how long an attempt whose gateway says nothing any more is taken
	// over: 6 s.
	Lease time.Duration
	// Wait is how long a request waits for one under way: 8 s.
	Wait time.Duration
	// MaxKeys is how many keys of one owner are kept, about: 4096.
	MaxKeys int
}

func (c Config) withDefaults() Config {
	if c.Keep == 0 {
		c.Keep = 24 * time.Hour
	}
	if c.Lease == 0 {
		c.Lease = 6 * time.Second
	}
	if c.Wait == 0 {
		c.Wait = 8 * time.Second
	}
	if c.MaxKeys == 0 {
		c.MaxKeys = 4096
	}
	return c
}

// Keeper keeps answers. It may be used concurrently.
type Keeper struct {
	config Config
	bucket jetstream.KeyValue
	seal   *seal.Sealer
	now    func() time.Time
	log    *slog.Logger
	room   *room
}

// New keeps answers in bucket, sealed; now is its clock.
func New(c Config, js jetstream.JetStream, bucket jetstream.KeyValue, s *seal.Sealer, now func() time.Time, log *slog.Logger) (*Keeper, error) {
	c = c.withDefaults()
	room, err := newRoom(js, c.MaxKeys, now)
	if err != nil {
		return nil, err
	}
	return &Keeper{config: c, bucket: bucket, seal: s, now: now, log: log, room: room}, nil
}

// Open keeps answers in the platform's bucket, as long and as many as is usual.
func Open(ctx context.Context, js jetstream.JetStream, s *seal.Sealer, log *slog.Logger) (*Keeper, error) {
	bucket, err := js.KeyValue(ctx, subjects.BucketAnswers)
	if err != nil {
		return nil, fmt.Errorf("open the bucket of answers: %w", err)
	}
	return New(Config{}, js, bucket, s, time.Now, log)
}

// Do answers a request: with what run answers, when it is the first, or with what
// came of the first. run is given the ID under which a command is to be given. It is
// not ended by ctx, for the answer is for repeated requests too. replayed says that
// the answer was kept. Errors are *problem.Error: 409 while another is under way, 422
// for the same key with another content, 429, 503.
func (k *Keeper) Do(ctx context.Context, r Request, run func(ctx context.Context, commandID string) Answer) (answer Answer, replayed bool, err error) {
	a := &attempt{keeper: k, request: r, name: r.name()}
	waiting, cancel := context.WithTimeout(ctx, k.config.Wait)
	defer cancel()
	for pause := pollFirst; ; pause = min(2*pause, pollMost) {
		kept, begun, err := a.begin(waiting)
		switch {
		case err != nil && waiting.Err() != nil, err == nil && kept == nil && !begun && waiting.Err() != nil:
			return Answer{}, false, underWay()
		case err != nil:
			return Answer{}, false, k.refused(ctx, err)
		case kept != nil:
			return *kept, true, nil
		case begun:
			answer, replayed = a.run(context.WithoutCancel(ctx), run)
			return answer, replayed, nil
		}
		select {
		case <-waiting.Done():
			return Answer{}, false, underWay()
		case <-time.After(pause):
		}
	}
}

func underWay() error {
	return &problem.Error{
		Status: http.StatusConflict, Code: CodeUnderWay, RetryAfter: time.Second,
		Message: "A request with this Idempotency-Key is still under way; send the same again in a second.",
	}
}

// refused keeps what is our own fault in the log.
func (k *Keeper) refused(ctx context.Context, err error) error {
	if own := (*problem.Error)(nil); errors.As(err, &own) {
		return own
	}
	k.log.ErrorContext(ctx, "an Idempotency-Key could not be looked up", "error", err)
	return problem.Unavailable("Whether this request was made before cannot be found out at the moment, so it was not carried out; send the same again in a second.", time.Second)
}

// attempt is one request on its way.
type attempt struct {
	keeper  *Keeper
	request Request
	name    string
	// record and revision are what the bucket has, once the attempt is begun.
	record   record
	revision uint64
}

// begin looks at what is kept and takes the request when nobody else has it. It
// returns neither an answer nor begun while another has.
func (a *attempt) begin(ctx context.Context) (kept *Answer, begun bool, err error) {
	k, now := a.keeper, a.keeper.now()
	entry, err := k.bucket.Get(ctx, a.name)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		if err := k.room.take(ctx, a.request.caller()); err != nil {
			return nil, false, err
		}
		begun, err = a.takeAnew(ctx, 0)
		return nil, begun, err
	}
	if err != nil {
		return nil, false, fmt.Errorf("look for an earlier request: %w", err)
	}
	before, err := readRecord(entry.Value())
	if err != nil {
		return nil, false, err
	}
	if !now.Before(before.Expires) {
		begun, err = a.takeAnew(ctx, entry.Revision())
		return nil, begun, err
	}
	inside, err := a.open(ctx, before)
	if err != nil {
		return nil, false, err
	}
	switch {
	case inside.fingerprint != a.request.fingerprint():
		return nil, false, &problem.Error{
			Status: http.StatusUnprocessableEntity, Code: CodeReused,
			Message: "This Idempotency-Key was used for another request; repeat that one as it was, or use a new key.",
		}
	case before.State == stateDone && inside.answer == nil:
		return nil, false, &problem.Error{
			Status: http.StatusConflict, Code: CodeNotKept,
			Message: "The request with this Idempotency-Key has been carried out, but its answer was too large to be kept; read the state with a GET.",
		}
	case before.State == stateDone:
		return inside.answer, false, nil
	case before.State == stateBusy && now.Before(before.Lease):
		return nil, false, nil
	}
	before.State, before.Lease = stateBusy, now.Add(k.config.Lease)
	begun, err = a.take(ctx, before, entry.Revision())
	return nil, begun, err
}

// takeAnew begins a request that nobody has made, or none that still counts.
func (a *attempt) takeAnew(ctx context.Context, revision uint64) (begun bool, err error) {
	now := a.keeper.now()
	sealed, err := a.sealed(ctx, nil)
	if err != nil {
		return false, err
	}
	return a.take(ctx, record{
		State: stateBusy, Command: newCommand(), Sealed: sealed,
		Lease: now.Add(a.keeper.config.Lease), Expires: now.Add(a.keeper.config.Keep),
	}, revision)
}

func newCommand() string { return uuid.Must(uuid.NewV7()).String() }

// take writes the record; begun is false when another was faster.
func (a *attempt) take(ctx context.Context, r record, revision uint64) (begun bool, err error) {
	a.record, a.revision = r, revision
	err = a.write(ctx)
	if errors.Is(err, jetstream.ErrKeyExists) {
		return false, nil
	}
	return err == nil, err
}

func (a *attempt) write(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	text, err := json.Marshal(a.record)
	if err != nil {
		return fmt.Errorf("write the record of a request: %w", err)
	}
	var revision uint64
	if a.revision == 0 {
		revision, err = a.keeper.bucket.Create(ctx, a.name, text)
	} else {
		revision, err = a.keeper.bucket.Update(ctx, a.name, text, a.revision)
	}
	if err != nil {
		return fmt.Errorf("write the record of a request: %w", err)
	}
	a.revision = revision
	return nil
}

// run has the request answered and keeps the answer. While it runs the others know
// that somebody does.
func (a *attempt) run(ctx context.Context, run func(context.Context, string) Answer) (answer Answer, replayed bool) {
	stop := a.renew(ctx)
	answered := false
	defer func() {
		if answered {
			return
		}
		// It panicked: what was done is not known.
		stop()
		a.free(ctx, a.record.Command)
	}()
	answer = run(ctx, a.record.Command)
	answered = true
	stop()
	switch {
	case answer.final():
		return a.finish(ctx, answer)
	case answer.refused():
		a.free(ctx, newCommand())
	default:
		a.free(ctx, a.record.Command)
	}
	return answer, false
}

// renew says every now and then that the attempt lives, until stop is called.
func (a *attempt) renew(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(a.keeper.config.Lease / 3)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			a.record.Lease = a.keeper.now().Add(a.keeper.config.Lease)
			// A write that is cut off would leave the revision unknown.
			err := a.write(context.WithoutCancel(ctx))
			if errors.Is(err, jetstream.ErrKeyExists) {
				return
			}
			if err != nil {
				a.keeper.log.WarnContext(ctx, "others cannot see that a request with an Idempotency-Key is under way", "error", err)
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// free lets another attempt try under that command's ID.
func (a *attempt) free(ctx context.Context, command string) {
	a.record.State, a.record.Command, a.record.Lease = stateFree, command, time.Time{}
	if err := a.write(ctx); err != nil {
		a.keeper.log.WarnContext(ctx, "a request that failed can be tried again only after its lease", "error", err)
	}
}

// finish keeps the answer. When the attempt was taken for dead and another one has
// answered meanwhile, that answer is the one for all.
func (a *attempt) finish(ctx context.Context, answer Answer) (final Answer, replayed bool) {
	err := a.keep(ctx, answer)
	if err == nil {
		return answer, false
	}
	if errors.Is(err, jetstream.ErrKeyExists) {
		if kept := a.others(ctx); kept != nil {
			return *kept, true
		}
	}
	// The log knows the command: whoever repeats it gets what came of it.
	a.keeper.log.ErrorContext(ctx, "an answer could not be kept", "error", err)
	return answer, false
}

func (a *attempt) keep(ctx context.Context, answer Answer) error {
	kept := &answer
	if len(answer.Body) > MaxAnswer {
		kept = nil
	}
	sealed, err := a.sealed(ctx, kept)
	if err != nil {
		return err
	}
	a.record.State, a.record.Sealed, a.record.Lease = stateDone, sealed, time.Time{}
	return a.write(ctx)
}

// others is the answer of the attempt that took over; nil while there is none.
func (a *attempt) others(ctx context.Context) *Answer {
	entry, err := a.keeper.bucket.Get(ctx, a.name)
	if err != nil {
		return nil
	}
	theirs, err := readRecord(entry.Value())
	if err != nil || theirs.State != stateDone {
		return nil
	}
	inside, err := a.open(ctx, theirs)
	if err != nil || inside.fingerprint != a.request.fingerprint() {
		return nil
	}
	return inside.answer
}
