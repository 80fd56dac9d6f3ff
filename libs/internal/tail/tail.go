// Package tail reads a JetStream stream in order without ever skipping a message:
// whenever it cannot be sure of that any more (a reconnect, a gap, a consumer that
// went with its server) the reader breaks, and its owner opens another one from
// the position it knows.
package tail

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// buffered is how many messages may wait for their reader, and how many are
	// asked for at a time.
	buffered = 512
	// heartbeat is how often the server says that it is there; a reader breaks
	// after two are missing.
	heartbeat = time.Second
	// inactive is when the server forgets a reader that is gone.
	inactive    = 30 * time.Second
	requestTime = 3 * time.Second
)

// ErrBroken is returned by Next when the reader has lost touch: open another one.
var ErrBroken = errors.New("lost touch with the stream")

// Config says what to read.
type Config struct {
	Stream string
	// Filters are subjects, with wildcards, that must not overlap.
	Filters []string
	// After is the sequence to begin behind.
	After uint64
	// LastPerSubject begins with the last message of each subject instead.
	LastPerSubject bool
}

// Message is one message of the stream.
type Message struct {
	Subject string
	Header  nats.Header
	Data    []byte
	// Sequence is its place in the stream.
	Sequence uint64
	// Pending is how many more were waiting when the server sent it.
	Pending uint64
	// Time is when the server stored it.
	Time time.Time
}

// Reader reads until it breaks. It is for one goroutine.
type Reader struct {
	conn     *nats.Conn
	js       jetstream.JetStream
	stream   string
	name     string
	status   chan nats.Status
	consume  jetstream.ConsumeContext
	messages chan jetstream.Msg
	broken   context.Context
	breakOff context.CancelCauseFunc
	waiting  uint64
	last     uint64 // consumer sequence
}

// Open begins to read. It must be closed. An error that Permanent tells will come
// again however often it is tried.
func Open(ctx context.Context, js jetstream.JetStream, c Config) (*Reader, error) {
	r := &Reader{
		conn: js.Conn(), js: js, stream: c.Stream,
		messages: make(chan jetstream.Msg, buffered),
	}
	r.broken, r.breakOff = context.WithCancelCause(context.WithoutCancel(ctx))
	// Registered before the consumer is made, so that no reconnect goes unseen.
	r.status = r.conn.StatusChanged(nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	switch {
	case r.conn.IsClosed():
		r.Close()
		return nil, fmt.Errorf("read the stream %s: %w", c.Stream, nats.ErrConnectionClosed)
	case !r.conn.IsConnected():
		r.Close()
		return nil, fmt.Errorf("not connected: %w", ErrBroken)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	consumer, err := js.CreateConsumer(ctx, c.Stream, c.consumer())
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("read the stream %s: %w", c.Stream, err)
	}
	info := consumer.CachedInfo()
	r.name, r.waiting = info.Name, info.NumPending
	go r.watchConnection()
	r.consume, err = consumer.Consume(r.take,
		jetstream.PullMaxMessages(buffered),
		jetstream.PullHeartbeat(heartbeat),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) { r.breakOff(err) }),
	)
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("read the stream %s: %w", c.Stream, err)
	}
	return r, nil
}

func (c Config) consumer() jetstream.ConsumerConfig {
	cfg := jetstream.ConsumerConfig{
		AckPolicy:         jetstream.AckNonePolicy,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: inactive,
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       c.After + 1,
	}
	if c.LastPerSubject {
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverLastPerSubjectPolicy, 0
	}
	if len(c.Filters) == 1 {
		cfg.FilterSubject = c.Filters[0]
	} else {
		cfg.FilterSubjects = c.Filters
	}
	return cfg
}

// Permanent reports whether opening failed for a reason that does not go away: a
// request that the server calls wrong, or a closed connection.
func Permanent(err error) bool {
	if errors.Is(err, nats.ErrConnectionClosed) {
		return true
	}
	var api *jetstream.APIError
	return errors.As(err, &api) && api.Code == http.StatusBadRequest
}

func (r *Reader) watchConnection() {
	select {
	case <-r.broken.Done():
	case status := <-r.status:
		r.breakOff(fmt.Errorf("the connection is %s", status))
	}
}

func (r *Reader) take(m jetstream.Msg) {
	select {
	case r.messages <- m:
	case <-r.broken.Done():
	}
}

// Waiting is how many messages there were to read when the reader was opened.
func (r *Reader) Waiting() uint64 { return r.waiting }

// Next waits for the next message. It returns ErrBroken, or ctx's error.
func (r *Reader) Next(ctx context.Context) (Message, error) {
	select {
	case m := <-r.messages:
		return r.message(m)
	case <-r.broken.Done():
		return Message{}, fmt.Errorf("%w: %w", ErrBroken, context.Cause(r.broken))
	case <-ctx.Done():
		return Message{}, ctx.Err()
	}
}

// TryNext returns the next message when it is there or comes within patience.
func (r *Reader) TryNext(ctx context.Context, patience time.Duration) (Message, bool, error) {
	select {
	case m := <-r.messages:
		got, err := r.message(m)
		return got, err == nil, err
	default:
	}
	if patience <= 0 {
		return Message{}, false, nil
	}
	// A timer, not a context: while catching up this is asked for most messages.
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case m := <-r.messages:
		got, err := r.message(m)
		return got, err == nil, err
	case <-late.C:
		return Message{}, false, nil
	case <-r.broken.Done():
		return Message{}, false, fmt.Errorf("%w: %w", ErrBroken, context.Cause(r.broken))
	case <-ctx.Done():
		return Message{}, false, ctx.Err()
	}
}

func (r *Reader) message(m jetstream.Msg) (Message, error) {
	meta, err := m.Metadata()
	if err != nil {
		return Message{}, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	if meta.Sequence.Consumer != r.last+1 {
		return Message{}, fmt.Errorf("%w: message %d came after %d", ErrBroken, meta.Sequence.Consumer, r.last)
	}
	r.last = meta.Sequence.Consumer
	return Message{
		Subject: m.Subject(), Header: m.Headers(), Data: m.Data(),
		Sequence: meta.Sequence.Stream, Pending: meta.NumPending, Time: meta.Timestamp,
	}, nil
}

// Close stops reading and lets the server forget the reader.
func (r *Reader) Close() {
	r.breakOff(errors.New("closed"))
	if r.consume != nil {
		r.consume.Stop()
	}
	r.conn.RemoveStatusListener(r.status)
	if r.name == "" || !r.conn.IsConnected() {
		return
	}
	// It would be forgotten anyway, after a while; nobody waits for this.
	_ = r.conn.Publish("$JS.API.CONSUMER.DELETE."+r.stream+"."+r.name, nil)
}
