// Package view is a JetStream key-value bucket of one protobuf message type: what
// machines need to know, written by its owner, rebuilt from the log.
//
// A revision is the sequence of the bucket's stream: it grows with every change of
// any key. A value that cannot be decoded does not stop a reader: it is left out,
// logged (WithLog) and counted (Skipped).
package view

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/protobuf/proto"

	"github.com/slipway-paas/slipway/libs/subjects"
)

const (
	requestTime = 5 * time.Second
	// markerLife is how long a deletion stays readable in a bucket that lets single
	// messages expire; a watcher that was away longer finds it by comparing.
	markerLife = time.Hour

	headerOperation = "KV-Operation"
	opDelete        = "DEL"
)

const (
	codeWrongLast         jetstream.ErrorCode = 10071
	codeWrongLastConstant jetstream.ErrorCode = 10164
)

var (
	// ErrConflict is returned by PutIf when the key has another revision.
	ErrConflict = errors.New("the key has changed")
	// ErrUnavailable is returned when the bucket did not answer: whether a write was
	// done is not known.
	ErrUnavailable = errors.New("the bucket is not available")
	// ErrInvalidKey is returned for a key that NATS does not allow.
	ErrInvalidKey = errors.New("not usable as a key")
)

var validKey = regexp.MustCompile(`^[-/_=a-zA-Z0-9]+(\.[-/_=a-zA-Z0-9]+)*$`)

// Entry is one key's value.
type Entry[T proto.Message] struct {
	Key      string
	Value    T
	Revision uint64
}

// Change is an entry that was put or deleted; of a deleted one Value is empty, and
// Revision is 0 when nobody knows any more when it was.
type Change[T proto.Message] struct {
	Entry[T]
	Deleted bool
}

// View is one bucket. Use Open.
type View[T proto.Message] struct {
	js      jetstream.JetStream
	kv      jetstream.KeyValue
	bucket  string
	newT    func() T
	expires bool // single messages may
	log     *slog.Logger
	skipped atomic.Uint64
	left    metric.Int64Counter // the same, for the meter
	label   metric.MeasurementOption
}

type options struct {
	log   *slog.Logger
	meter metric.Meter
}

// Option changes how a view behaves.
type Option func(*options)

// WithLog logs what is left out, and reconnects at debug level.
func WithLog(log *slog.Logger) Option { return func(o *options) { o.log = log } }

// WithMeter counts the values that are left out, by bucket.
func WithMeter(m metric.Meter) Option { return func(o *options) { o.meter = m } }

// Open uses a bucket, which must exist. newT makes an empty value.
func Open[T proto.Message](ctx context.Context, js jetstream.JetStream, bucket string, newT func() T, opts ...Option) (*View[T], error) {
	o := options{log: slog.New(slog.DiscardHandler), meter: noop.Meter{}}
	for _, opt := range opts {
		opt(&o)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	kv, err := js.KeyValue(ctx, bucket)
	if err != nil {
		return nil, fmt.Errorf("open the bucket %s: %w", bucket, err)
	}
	stream, err := js.Stream(ctx, streamName(bucket))
	if err != nil {
		return nil, fmt.Errorf("open the bucket %s: %w", bucket, err)
	}
	v := &View[T]{
		js: js, kv: kv, bucket: bucket, newT: newT, log: o.log.With("bucket", bucket),
		expires: stream.CachedInfo().Config.AllowMsgTTL,
		label:   metric.WithAttributeSet(attribute.NewSet(attribute.String("bucket", bucket))),
	}
	v.left, err = o.meter.Int64Counter("slipway.view.skipped", metric.WithDescription("Values that a reader left out because it cannot read them."))
	if err != nil {
		return nil, fmt.Errorf("open the bucket %s: %w", bucket, err)
	}
	// The series is there from the start, so that its growth can be seen.
	v.left.Add(ctx, 0, v.label)
	return v, nil
}

// Skipped counts the values that were left out because they cannot be decoded.
func (v *View[T]) Skipped() uint64 { return v.skipped.Load() }

// Get returns one key's entry, and false when there is none.
func (v *View[T]) Get(ctx context.Context, key string) (Entry[T], bool, error) {
	if !validKey.MatchString(key) {
		return Entry[T]{}, false, fmt.Errorf("get %q: %w", key, ErrInvalidKey)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	got, err := v.kv.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return Entry[T]{}, false, nil
	}
	if err != nil {
		return Entry[T]{}, false, fmt.Errorf("get %s of %s: %w: %w", key, v.bucket, ErrUnavailable, err)
	}
	value := v.newT()
	if err := proto.Unmarshal(got.Value(), value); err != nil {
		return Entry[T]{}, false, fmt.Errorf("decode %s of %s: %w", key, v.bucket, err)
	}
	return Entry[T]{Key: key, Value: value, Revision: got.Revision()}, true, nil
}

// Put writes a value whatever was there, and returns its revision. Errors: ErrUnavailable.
func (v *View[T]) Put(ctx context.Context, key string, value T) (revision uint64, err error) {
	return v.put(ctx, key, value, nil)
}

// PutIf writes a value when the key's last revision is still that one; 0 when there
// must be none. Errors: ErrConflict, ErrUnavailable.
func (v *View[T]) PutIf(ctx context.Context, key string, value T, lastRevision uint64) (revision uint64, err error) {
	revision, err = v.put(ctx, key, value, &lastRevision)
	if lastRevision != 0 || !errors.Is(err, ErrConflict) {
		return revision, err
	}
	// A deleted key is none, but its deletion has a revision.
	deletion, lookErr := v.deletion(ctx, key)
	if lookErr != nil {
		return 0, lookErr
	}
	if deletion == 0 {
		return 0, err
	}
	return v.put(ctx, key, value, &deletion)
}

func (v *View[T]) put(ctx context.Context, key string, value T, last *uint64) (uint64, error) {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(value)
	if err != nil {
		return 0, fmt.Errorf("put %s of %s: %w", key, v.bucket, err)
	}
	header := nats.Header{}
	if last != nil {
		header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(*last, 10))
	}
	return v.publish(ctx, "put", key, header, data)
}

// Delete removes a key, there or not, and returns the revision of the deletion.
// Errors: ErrUnavailable.
func (v *View[T]) Delete(ctx context.Context, key string) (revision uint64, err error) {
	header := nats.Header{}
	header.Set(headerOperation, opDelete)
	if v.expires {
		header.Set(jetstream.MsgTTLHeader, markerLife.String())
	}
	return v.publish(ctx, "delete", key, header, nil)
}

func (v *View[T]) publish(ctx context.Context, what, key string, header nats.Header, data []byte) (uint64, error) {
	if !validKey.MatchString(key) {
		return 0, fmt.Errorf("%s %q: %w", what, key, ErrInvalidKey)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	ack, err := v.js.PublishMsg(ctx, &nats.Msg{Subject: v.subject(key), Header: header, Data: data})
	if err == nil {
		return ack.Sequence, nil
	}
	var api *jetstream.APIError
	switch {
	case errors.As(err, &api) && (api.ErrorCode == codeWrongLast || api.ErrorCode == codeWrongLastConstant):
		err = fmt.Errorf("%w: %w", ErrConflict, err)
	case errors.Is(err, nats.ErrMaxPayload), api != nil && api.Code < http.StatusInternalServerError:
	default:
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return 0, fmt.Errorf("%s %s of %s: %w", what, key, v.bucket, err)
}

// deletion returns the revision at which the key was deleted; 0 when it was not.
func (v *View[T]) deletion(ctx context.Context, key string) (uint64, error) {
	last, err := v.last(ctx, key)
	if err != nil || last == nil || !isDeletion(last.header()) {
		return 0, err
	}
	return last.Sequence, nil
}

func (v *View[T]) decode(key string, data []byte, revision uint64) (Entry[T], bool) {
	value := v.newT()
	if err := proto.Unmarshal(data, value); err != nil {
		v.skipped.Add(1)
		v.left.Add(context.Background(), 1, v.label)
		v.log.Warn("left out a value that cannot be decoded", "key", key, "revision", revision, "error", err)
		return Entry[T]{}, false
	}
	return Entry[T]{Key: key, Value: value, Revision: revision}, true
}

func (v *View[T]) subject(key string) string { return subjects.OfKey(v.bucket, key) }

func (v *View[T]) key(subject string) string { return strings.TrimPrefix(subject, v.subject("")) }

func streamName(bucket string) string { return "KV_" + bucket }

// isDeletion is also true for what the server writes when a value has expired.
func isDeletion(header nats.Header) bool {
	return header.Get(headerOperation) != "" || header.Get(jetstream.MarkerReasonHeader) != ""
}
