package backup

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/libs/subjects"
)

// everything is behind the last message that a stream can have.
const everything = math.MaxUint64

// walk hands over every message up to a sequence, in order.
func walk(ctx context.Context, js jetstream.JetStream, name string, upTo uint64, each func(jetstream.Msg, *jetstream.MsgMetadata)) error {
	failed := func(err error) error { return fmt.Errorf("read the stream %s: %w", name, err) }
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return failed(err)
	}
	state := stream.CachedInfo().State
	last := min(upTo, state.LastSeq)
	if state.Msgs == 0 || last < state.FirstSeq {
		return nil
	}
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy})
	if err != nil {
		return failed(err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		return failed(err)
	}
	defer context.AfterFunc(ctx, messages.Stop)()
	defer messages.Stop()
	for {
		m, err := messages.Next()
		if ctx.Err() != nil {
			return failed(ctx.Err())
		}
		if err != nil {
			return failed(err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return failed(err)
		}
		if meta.Sequence.Stream > last {
			return nil
		}
		each(m, meta)
		if meta.Sequence.Stream == last || meta.NumPending == 0 {
			return nil
		}
	}
}

// describe reads a stream up to a sequence and says what it holds.
func describe(ctx context.Context, js jetstream.JetStream, name string, upTo uint64) (Stream, error) {
	sum := sha256.New()
	s := Stream{Name: name}
	err := walk(ctx, js, name, upTo, func(m jetstream.Msg, meta *jetstream.MsgMetadata) {
		s.Messages++
		s.Last = meta.Sequence.Stream
		add(sum, m, meta)
	})
	s.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return s, err
}

// add adds one message, each part with its length before it.
func add(sum hash.Hash, m jetstream.Msg, meta *jetstream.MsgMetadata) {
	number := func(n uint64) { _ = binary.Write(sum, binary.BigEndian, n) } // a hash takes all
	text := func(s string) {
		number(uint64(len(s)))
		sum.Write([]byte(s))
	}
	number(meta.Sequence.Stream)
	number(uint64(meta.Timestamp.UnixNano()))
	text(m.Subject())
	headers := m.Headers()
	number(uint64(len(headers)))
	for _, key := range slices.Sorted(maps.Keys(headers)) {
		text(key)
		number(uint64(len(headers[key])))
		for _, value := range headers[key] {
			text(value)
		}
	}
	text(string(m.Data()))
}

// compareLog holds the restored log against the live one, which may have grown.
func compareLog(ctx context.Context, live, restored jetstream.JetStream) error {
	if err := compareSettings(ctx, live, restored, subjects.StreamEvents); err != nil {
		return err
	}
	got, err := describe(ctx, restored, subjects.StreamEvents, everything)
	if err != nil {
		return err
	}
	want, err := describe(ctx, live, subjects.StreamEvents, got.Last)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%w: %+v was restored, %+v is live", ErrDifferent, got, want)
	}
	return nil
}

// compareKeys holds restored data keys against the live ones. A key may have been
// made or destroyed meanwhile; its bucket keeps the last word on each.
func compareKeys(ctx context.Context, live, restored jetstream.JetStream) error {
	if err := compareSettings(ctx, live, restored, keysStream); err != nil {
		return err
	}
	was, err := lastWords(ctx, restored)
	if err != nil {
		return err
	}
	is, err := lastWords(ctx, live)
	if err != nil {
		return err
	}
	newest := uint64(0)
	for _, w := range was {
		newest = max(newest, w.sequence)
	}
	for subject, w := range was {
		if now := is[subject]; now != w && now.sequence <= newest {
			return fmt.Errorf("%w: the data key %s", ErrDifferent, subject)
		}
	}
	for subject, now := range is {
		if _, ok := was[subject]; !ok && now.sequence <= newest {
			return fmt.Errorf("%w: the data key %s is missing", ErrDifferent, subject)
		}
	}
	return nil
}

// word is the last message of a subject.
type word struct {
	sequence uint64
	sum      [sha256.Size]byte
}

func lastWords(ctx context.Context, js jetstream.JetStream) (map[string]word, error) {
	words := map[string]word{}
	return words, walk(ctx, js, keysStream, everything, func(m jetstream.Msg, meta *jetstream.MsgMetadata) {
		sum := sha256.New()
		add(sum, m, meta)
		words[m.Subject()] = word{meta.Sequence.Stream, [sha256.Size]byte(sum.Sum(nil))}
	})
}

// compareSettings finds a setting that was lost on the way. How many servers keep
// the stream, and where, is not part of it.
func compareSettings(ctx context.Context, live, restored jetstream.JetStream, name string) error {
	var texts [2]string
	for i, js := range []jetstream.JetStream{live, restored} {
		stream, err := js.Stream(ctx, name)
		if err != nil {
			return fmt.Errorf("look at the stream %s: %w", name, err)
		}
		config := stream.CachedInfo().Config
		config.Replicas, config.Placement = 1, nil
		// The server's own notes about itself.
		maps.DeleteFunc(config.Metadata, func(key, _ string) bool { return strings.HasPrefix(key, "_nats.") })
		text, err := json.Marshal(config)
		if err != nil {
			return fmt.Errorf("look at the stream %s: %w", name, err)
		}
		texts[i] = string(text)
	}
	if texts[0] != texts[1] {
		return fmt.Errorf("%w: the stream %s is set to %s, restored it is set to %s", ErrDifferent, name, texts[0], texts[1])
	}
	return nil
}
