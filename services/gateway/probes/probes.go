// Package probes reads when instances were last probed from the short-lived
// stream PROBES.
package probes

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	healthv1 "github.com/slipway-paas/slipway/gen/slipway/health/v1"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// retry is how long to wait before reading again after a failure.
const retry = time.Second

// JetStream is the feed of probe results of a JetStream server.
type JetStream struct {
	js  jetstream.JetStream
	log *slog.Logger
}

// NewJetStream makes a feed; the stream may be made later.
func NewJetStream(js jetstream.JetStream, log *slog.Logger) *JetStream {
	return &JetStream{js: js, log: log}
}

// Follow hands over the last result of every instance and then each new one, until
// ctx ends. Results are noise: a gap while the connection is lost is not made up
// for. It returns nil when ctx has ended.
func (f *JetStream) Follow(ctx context.Context, handle func(*healthv1.ProbeResult)) error {
	for ctx.Err() == nil {
		if err := f.read(ctx, handle); err != nil && ctx.Err() == nil {
			f.log.DebugContext(ctx, "reading probe results again soon", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
	}
	return nil
}

func (f *JetStream) read(ctx context.Context, handle func(*healthv1.ProbeResult)) error {
	consumer, err := f.js.OrderedConsumer(ctx, subjects.StreamProbes, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{subjects.AllProbes}, DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy,
	})
	if err != nil {
		return fmt.Errorf("read the stream %s: %w", subjects.StreamProbes, err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		return fmt.Errorf("read the stream %s: %w", subjects.StreamProbes, err)
	}
	defer messages.Stop()
	for {
		message, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("read the stream %s: %w", subjects.StreamProbes, err)
		}
		result := &healthv1.ProbeResult{}
		if err := proto.Unmarshal(message.Data(), result); err != nil {
			f.log.WarnContext(ctx, "a probe result cannot be read", "subject", message.Subject(), "error", err)
			continue
		}
		handle(result)
	}
}
