package jetstream

import (
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// Headers of an event: CloudEvents' NATS binding, ours, and W3C's.
const (
	headerSpec        = "ce-specversion"
	headerID          = "ce-id"
	headerType        = "ce-type" // the message's full name
	headerSource      = "ce-source"
	headerTime        = "ce-time"
	headerSubject     = "ce-subject" // the aggregate
	headerContent     = "content-type"
	headerActor       = "Slipway-Actor"
	headerCausation   = "Slipway-Causation"
	headerCorrelation = "Slipway-Correlation"
	headerTrace       = "traceparent"

	specVersion = "1.0"
	contentType = "application/protobuf"
)

func encode(e eventstore.Event) (*nats.Msg, error) {
	if err := e.Aggregate.Validate(); err != nil {
		return nil, fmt.Errorf("append to %s: %w", e.Aggregate, err)
	}
	if e.ID == "" || e.Payload == nil {
		return nil, fmt.Errorf("append to %s: the event has no ID or no payload", e.Aggregate)
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(e.Payload)
	if err != nil {
		return nil, fmt.Errorf("append to %s: encode %s: %w", e.Aggregate, e.Type(), err)
	}
	msg := &nats.Msg{Subject: e.Aggregate.Event(e.Type()), Data: data, Header: nats.Header{
		headerSpec:    {specVersion},
		headerID:      {e.ID},
		headerType:    {string(e.Payload.ProtoReflect().Descriptor().FullName())},
		headerTime:    {e.Time.UTC().Format(time.RFC3339Nano)},
		headerSubject: {e.Aggregate.String()},
		headerContent: {contentType},
		// IDs are unique within their aggregate; the server's memory is one for all.
		jetstream.MsgIDHeader:          {e.Aggregate.Filter() + e.ID},
		jetstream.ExpectedStreamHeader: {subjects.StreamEvents},
	}}
	for name, value := range map[string]string{
		headerSource: e.Source, headerActor: e.Actor, headerCausation: e.Causation,
		headerCorrelation: e.Correlation, headerTrace: e.TraceParent,
	} {
		if value != "" {
			msg.Header[name] = []string{value}
		}
	}
	return msg, nil
}

func expect(msg *nats.Msg, e eventstore.Expected) {
	msg.Header[jetstream.ExpectedLastSubjSeqSubjHeader] = []string{e.Aggregate.Filter()}
	msg.Header[jetstream.ExpectedLastSubjSeqHeader] = []string{strconv.FormatUint(e.LastSequence, 10)}
}

// decode reads an event. With an error the event is still one to hand over, as
// unreadable.
// Read is the event in a message of the stream of events, for those who follow it with
// a consumer of their own. One that cannot be read has the payload NewUnreadable.
func Read(msg jetstream.Msg) (eventstore.Recorded, error) {
	about, err := msg.Metadata()
	if err != nil {
		return eventstore.Recorded{}, fmt.Errorf("read an event's place in the log: %w", err)
	}
	// Why it cannot be read is said by the store, to all who follow it.
	rec, _ := decode(msg.Subject(), msg.Headers(), msg.Data(), about.Sequence.Stream)
	return rec, nil
}

func decode(subject string, header nats.Header, data []byte, sequence uint64) (eventstore.Recorded, error) {
	aggregate, _, err := subjects.ParseEvent(subject)
	failed := func(err error) (eventstore.Recorded, error) {
		return eventstore.Recorded{Sequence: sequence, Event: eventstore.Event{
			Aggregate: aggregate, ID: header.Get(headerID), Payload: eventstore.NewUnreadable(),
		}}, fmt.Errorf("event %d (%s): %w", sequence, subject, err)
	}
	if err != nil {
		return failed(err)
	}
	name := protoreflect.FullName(header.Get(headerType))
	kind, err := protoregistry.GlobalTypes.FindMessageByName(name)
	if err != nil {
		return failed(fmt.Errorf("the type %q is not known to this program: %w", name, err))
	}
	payload := kind.New().Interface()
	if err := proto.Unmarshal(data, payload); err != nil {
		return failed(fmt.Errorf("decode %s: %w", name, err))
	}
	at, err := time.Parse(time.RFC3339Nano, header.Get(headerTime))
	if err != nil {
		return failed(fmt.Errorf("its time: %w", err))
	}
	return eventstore.Recorded{Sequence: sequence, Event: eventstore.Event{
		Aggregate:   aggregate,
		ID:          header.Get(headerID),
		Payload:     payload,
		Time:        at.UTC(),
		Source:      header.Get(headerSource),
		Actor:       header.Get(headerActor),
		Causation:   header.Get(headerCausation),
		Correlation: header.Get(headerCorrelation),
		TraceParent: header.Get(headerTrace),
	}}, nil
}
