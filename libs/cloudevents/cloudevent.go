// Package cloudevents is how an organization sees its own events outside the platform:
// which ones it selects, and each rendered in CloudEvents' words (CloudEvents 1.0,
// JSON), without anything sealed.
package cloudevents

import (
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/slipway-paas/slipway/libs/eventstore"
)

// Event is one event as clients see it: CloudEvents 1.0 in JSON, with sequence and
// actor as extensions.
type Event struct {
	SpecVersion string         `json:"specversion"`
	ID          string         `json:"id"`
	Type        string         `json:"type"`
	Source      string         `json:"source"`
	Subject     string         `json:"subject"`
	Time        time.Time      `json:"time"`
	Sequence    uint64         `json:"sequence"`
	Actor       string         `json:"actor"`
	Data        map[string]any `json:"data"`
}

// Render makes an Event of a recorded one. Data has every field of the payload
// under its schema name, null or zero when absent, but for bytes: those are what is
// sealed and hashes of secrets, and of sealed values only the names are shown.
func Render(rec eventstore.Recorded) (Event, error) {
	data, err := object(rec.Payload.ProtoReflect())
	if err != nil {
		return Event{}, fmt.Errorf("render the %s with sequence %d: %w", rec.Type(), rec.Sequence, err)
	}
	return Event{
		SpecVersion: "1.0", ID: rec.ID, Type: rec.Type(), Source: rec.Source, Subject: rec.Aggregate.String(),
		Time: rec.Time.UTC().Truncate(time.Millisecond), Sequence: rec.Sequence, Actor: rec.Actor, Data: data,
	}, nil
}

// Struct is Data as gRPC carries it, where every number is a double.
func (e Event) Struct() (*structpb.Struct, error) {
	out, err := structpb.NewStruct(e.Data)
	if err != nil {
		return nil, fmt.Errorf("carry the %s with sequence %d: %w", e.Type, e.Sequence, err)
	}
	return out, nil
}

// object is protojson's mapping but for 64-bit integers, which stay numbers, and
// bytes, which stay here.
func object(m protoreflect.Message) (map[string]any, error) {
	fields := m.Descriptor().Fields()
	out := make(map[string]any, fields.Len())
	for i := range fields.Len() {
		field := fields.Get(i)
		if holdsBytes(field) {
			continue
		}
		if field.HasPresence() && !m.Has(field) {
			out[field.TextName()] = nil
			continue
		}
		v, err := fieldValue(field, m.Get(field))
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", field.TextName(), err)
		}
		out[field.TextName()] = v
	}
	return out, nil
}

// holdsBytes reports whether a field is bytes, many of them or a map to them.
func holdsBytes(f protoreflect.FieldDescriptor) bool {
	if f.IsMap() {
		f = f.MapValue()
	}
	return f.Kind() == protoreflect.BytesKind
}

func fieldValue(field protoreflect.FieldDescriptor, v protoreflect.Value) (any, error) {
	switch {
	case field.IsList():
		list := v.List()
		out := make([]any, list.Len())
		for i := range out {
			var err error
			if out[i], err = single(field, list.Get(i)); err != nil {
				return nil, err
			}
		}
		return out, nil
	case field.IsMap():
		out := make(map[string]any, v.Map().Len())
		var failure error
		v.Map().Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
			out[key.String()], failure = single(field.MapValue(), value)
			return failure == nil
		})
		return out, failure
	}
	return single(field, v)
}

func single(field protoreflect.FieldDescriptor, v protoreflect.Value) (any, error) {
	switch field.Kind() {
	case protoreflect.MessageKind:
		if v.Message().Descriptor().ParentFile().Package() == "google.protobuf" {
			if shown, err := wellKnown(v.Message().Interface()); err == nil {
				return shown, nil
			}
			// A time that no calendar has: shown by its fields, for the events that come
			// after it must be seen too.
		}
		return object(v.Message())
	case protoreflect.EnumKind:
		if known := field.Enum().Values().ByNumber(v.Enum()); known != nil {
			return string(known.Name()), nil
		}
		return float64(v.Enum()), nil
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind,
		protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return json.Number(fmt.Sprint(v.Int())), nil
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return json.Number(fmt.Sprint(v.Uint())), nil
	default:
		// Strings, booleans and floats as they are.
		return v.Interface(), nil
	}
}

func wellKnown(m proto.Message) (any, error) {
	text, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	var v any
	return v, json.Unmarshal(text, &v)
}
