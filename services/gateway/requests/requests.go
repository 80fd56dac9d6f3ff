// Package requests reads what edges said of an app's requests: the entries of its
// access log, and sums of them over a window of time. Both come from short-lived
// streams and belong to one deployment of one organization.
package requests

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/DataDog/sketches-go/ddsketch"
	"github.com/DataDog/sketches-go/ddsketch/pb/sketchpb"
	"github.com/DataDog/sketches-go/ddsketch/store"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	edgev1 "github.com/slipway-paas/slipway/gen/slipway/edge/v1"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// mostBins bounds what durations are merged into.
const mostBins = 2048

// Entry is one request, with the edge that served it and how many entries of the app
// that edge had to leave out before it.
type Entry struct {
	*edgev1.AccessLogEntry
	Edge    string
	Dropped uint64
}

// Sums are all requests within a window.
type Sums struct {
	// From is when the window begins.
	From, Until time.Time
	// Class are requests by the class of their status, 1xx first.
	Class             [5]uint64
	BytesIn, BytesOut uint64
	// P50, P90 and P99 are milliseconds; 0 when nothing was timed.
	P50, P90, P99 float64
}

// Requests is their number.
func (s Sums) Requests() (n uint64) {
	for _, of := range s.Class {
		n += of
	}
	return n
}

// JetStream reads from a JetStream server.
type JetStream struct {
	js  jetstream.JetStream
	now func() time.Time
}

// NewJetStream makes a reader; the streams may be made later.
func NewJetStream(js jetstream.JetStream, now func() time.Time) *JetStream {
	return &JetStream{js: js, now: now}
}

// lookBack is how far to look for the last entries, the next when that was not enough:
// a busy app has them in the last seconds, and there is no way back from the end.
var lookBack = [...]time.Duration{15 * time.Second, 3 * time.Minute, 0}

// Last returns the last so many entries, oldest first, and the sequence in the stream
// that they go up to.
func (j *JetStream) Last(ctx context.Context, org, deployment string, most int) ([]Entry, uint64, error) {
	var entries []Entry
	var last uint64
	for _, back := range lookBack {
		entries = entries[:0]
		from := j.begin(back)
		err := j.past(ctx, subjects.StreamAccessLogs, subjects.AccessLog(org, deployment), from, func(m jetstream.Msg, sequence uint64) error {
			last = sequence
			batch, err := decode(m)
			if err != nil {
				return err
			}
			entries = append(entries, batch...)
			if len(entries) > 4*most {
				entries = newest(entries, most)
			}
			return nil
		})
		if err != nil {
			return nil, 0, err
		}
		if len(entries) >= most {
			break
		}
	}
	return newest(entries, most), last, nil
}

// Follow hands over the entries after that sequence in the stream, and goes on as they
// come. It returns nil when ctx has ended, and an error when
// the stream cannot be read.
func (j *JetStream) Follow(ctx context.Context, org, deployment string, after uint64, handle func([]Entry) error) error {
	config := jetstream.OrderedConsumerConfig{FilterSubjects: []string{subjects.AccessLog(org, deployment)}, DeliverPolicy: jetstream.DeliverAllPolicy}
	if after > 0 {
		config.DeliverPolicy, config.OptStartSeq = jetstream.DeliverByStartSequencePolicy, after+1
	}
	messages, err := j.open(ctx, subjects.StreamAccessLogs, config)
	if err != nil {
		return err
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the stream %s: %w", subjects.StreamAccessLogs, err)
		}
		batch, err := decode(m)
		if err != nil {
			return err
		}
		if err := handle(batch); err != nil {
			return err
		}
	}
}

// Sum adds up what all edges served within the last so long.
func (j *JetStream) Sum(ctx context.Context, org, deployment string, window time.Duration) (Sums, error) {
	until := j.now()
	sums := Sums{From: until.Add(-window), Until: until}
	durations, err := ddsketch.LogCollapsingLowestDenseDDSketch(0.01, mostBins)
	if err != nil {
		return Sums{}, fmt.Errorf("make a sketch: %w", err)
	}
	err = j.past(ctx, subjects.StreamRequestSummaries, subjects.RequestSummary(org, deployment), &sums.From, func(m jetstream.Msg, _ uint64) error {
		s := &edgev1.RequestSummary{}
		if err := proto.Unmarshal(m.Data(), s); err != nil {
			return fmt.Errorf("read %s: %w", m.Subject(), err)
		}
		for class, n := range [...]uint64{s.GetInformational(), s.GetSuccessful(), s.GetRedirects(), s.GetClientErrors(), s.GetServerErrors()} {
			sums.Class[class] += n
		}
		sums.BytesIn += s.GetBytesIn()
		sums.BytesOut += s.GetBytesOut()
		return merge(durations, s.GetDurations())
	})
	if err != nil || durations.IsEmpty() {
		return sums, err
	}
	quantiles, err := durations.GetValuesAtQuantiles([]float64{0.5, 0.9, 0.99})
	if err != nil {
		return Sums{}, fmt.Errorf("read quantiles: %w", err)
	}
	sums.P50, sums.P90, sums.P99 = quantiles[0], quantiles[1], quantiles[2]
	return sums, nil
}

func merge(into *ddsketch.DDSketch, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	encoded := &sketchpb.DDSketch{}
	if err := proto.Unmarshal(data, encoded); err != nil {
		return fmt.Errorf("read durations: %w", err)
	}
	sketch, err := ddsketch.FromProtoWithStoreProvider(encoded, func() store.Store { return store.NewCollapsingLowestDenseStore(mostBins) })
	if err != nil {
		return fmt.Errorf("read durations: %w", err)
	}
	if err := into.MergeWith(sketch); err != nil {
		return fmt.Errorf("merge durations: %w", err)
	}
	return nil
}

// begin is so long ago; nil for the stream's beginning.
func (j *JetStream) begin(back time.Duration) *time.Time {
	if back == 0 {
		return nil
	}
	from := j.now().Add(-back)
	return &from
}

// past hands over the subject's messages since then that are there now.
func (j *JetStream) past(ctx context.Context, stream, subject string, from *time.Time, handle func(m jetstream.Msg, sequence uint64) error) error {
	config := jetstream.OrderedConsumerConfig{FilterSubjects: []string{subject}, DeliverPolicy: jetstream.DeliverAllPolicy}
	if from != nil {
		config.DeliverPolicy, config.OptStartTime = jetstream.DeliverByStartTimePolicy, from
	}
	consumer, err := j.js.OrderedConsumer(ctx, stream, config)
	if err != nil {
		return fmt.Errorf("read the stream %s: %w", stream, err)
	}
	if info := consumer.CachedInfo(); info != nil && info.NumPending == 0 && info.Delivered.Consumer == 0 {
		return nil
	}
	messages, err := consumer.Messages()
	if err != nil {
		return fmt.Errorf("read the stream %s: %w", stream, err)
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("read the stream %s: %w", stream, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("read the stream %s: %w", stream, err)
		}
		if err := handle(m, meta.Sequence.Stream); err != nil {
			return err
		}
		if meta.NumPending == 0 {
			return nil
		}
	}
}

func (j *JetStream) open(ctx context.Context, stream string, config jetstream.OrderedConsumerConfig) (jetstream.MessagesContext, error) {
	consumer, err := j.js.OrderedConsumer(ctx, stream, config)
	if err != nil {
		return nil, fmt.Errorf("read the stream %s: %w", stream, err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		return nil, fmt.Errorf("read the stream %s: %w", stream, err)
	}
	return messages, nil
}

// errUnreadable is returned for a batch that holds no entry.
var errUnreadable = errors.New("no batch of an access log")

func decode(m jetstream.Msg) ([]Entry, error) {
	batch := &edgev1.AccessLogBatch{}
	if err := proto.Unmarshal(m.Data(), batch); err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", m.Subject(), errUnreadable, err)
	}
	entries := make([]Entry, 0, len(batch.GetEntries()))
	for n, e := range batch.GetEntries() {
		entry := Entry{AccessLogEntry: e, Edge: batch.GetEdgeId()}
		if n == 0 {
			entry.Dropped = batch.GetDropped()
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

// newest are the last so many by time: edges send their batches in any order.
func newest(entries []Entry, most int) []Entry {
	slices.SortStableFunc(entries, func(a, b Entry) int { return a.GetTime().AsTime().Compare(b.GetTime().AsTime()) })
	return entries[max(0, len(entries)-most):]
}
