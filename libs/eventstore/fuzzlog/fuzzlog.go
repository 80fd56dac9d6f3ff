// Package fuzzlog makes logs of the bytes that a fuzzer gives, so that folds can be
// held against every log that the wire could carry: fields absent, huge, negative,
// not of the aggregate, in any order.
//
// One event is its kind (one byte, the message's place in the schema), the seconds
// since Start (zig-zag varint), the payload's length (varint) and the payload.
package fuzzlog

import (
	"encoding/binary"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// most bounds one log, so that a long input is not taken for a hang.
const most = 256

// Start is the time that events are counted from.
func Start() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

// Schema knows the messages that events may be.
type Schema struct {
	kinds     []protoreflect.MessageType
	aggregate subjects.Aggregate
}

// Of is the schema of a file's messages; the events are the aggregate's.
func Of(file protoreflect.FileDescriptor, aggregate subjects.Aggregate) (Schema, error) {
	s := Schema{aggregate: aggregate}
	for i := range file.Messages().Len() {
		kind, err := protoregistry.GlobalTypes.FindMessageByName(file.Messages().Get(i).FullName())
		if err != nil {
			return Schema{}, fmt.Errorf("the messages of %s: %w", file.Path(), err)
		}
		s.kinds = append(s.kinds, kind)
	}
	return s, nil
}

// Bytes is the input that Log makes these events of, a second apart.
func (s Schema) Bytes(events ...proto.Message) ([]byte, error) {
	var out []byte
	for n, e := range events {
		data, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
		if err != nil {
			return nil, fmt.Errorf("write the %dth event: %w", n+1, err)
		}
		kind := -1
		for i, k := range s.kinds {
			if k.Descriptor().FullName() == e.ProtoReflect().Descriptor().FullName() {
				kind = i
			}
		}
		if kind < 0 {
			return nil, fmt.Errorf("the %dth event is a %T, which is not of the schema", n+1, e)
		}
		out = append(out, byte(kind))
		out = binary.AppendVarint(out, int64(n))
		out = binary.AppendUvarint(out, uint64(len(data)))
		out = append(out, data...)
	}
	return out, nil
}

// Log is what the bytes say: at most 256 events, in order. A payload that cannot be
// decoded is an event that cannot be read, as in the real log; bytes that are no
// event end it.
func (s Schema) Log(data []byte) []eventstore.Recorded {
	var log []eventstore.Recorded
	for len(data) > 0 && len(log) < most {
		kind := s.kinds[int(data[0])%len(s.kinds)]
		data = data[1:]
		seconds, n := binary.Varint(data)
		if n <= 0 {
			break
		}
		data = data[n:]
		length, n := binary.Uvarint(data)
		if n <= 0 {
			break
		}
		data = data[n:]
		length = min(length, uint64(len(data)))
		payload := kind.New().Interface()
		if err := proto.Unmarshal(data[:length], payload); err != nil {
			payload = eventstore.NewUnreadable()
		}
		data = data[length:]
		log = append(log, eventstore.Recorded{Sequence: uint64(len(log)) + 1, Event: eventstore.Event{
			Aggregate: s.aggregate, ID: fmt.Sprintf("event-%d", len(log)+1), Payload: payload,
			Time: at(seconds), Source: "fuzz",
		}})
	}
	return log
}

// at keeps to what an event's header can say: the years 0 to 9999.
func at(seconds int64) time.Time {
	const century = int64(100 * 365 * 24 * 3600)
	return Start().Add(time.Duration(seconds%century) * time.Second)
}
