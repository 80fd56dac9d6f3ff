// Package strictjson reads and writes the JSON of the public API. Reading is
// strict: what a client sent by mistake is refused by name instead of being
// ignored or guessed. Writing keeps the dialect's own shape: snake_case, every
// field present, null for what is absent.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/slipway-paas/slipway/libs/problem"
)

// Unmarshal reads one JSON object into m. Unknown and repeated fields, wrong
// types, invalid UTF-8 and anything after the object are a *problem.Error (400) that
// names the field and says what to send. null is absent. A whole number that is too large
// for a 32-bit field becomes the nearest that fits: whoever checks ranges refuses it
// together with the other fields at fault.
//
// It knows the kinds that requests are made of: strings, 32-bit integers, booleans,
// their wrappers, times, lists of strings, and maps from string to string or to 32-bit
// integer.
func Unmarshal(data []byte, m proto.Message) error {
	if !utf8.Valid(data) {
		return fault("The body is not valid UTF-8; send JSON in UTF-8.")
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return fault("The body is empty; send a JSON object.")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	first, err := d.Token()
	if err != nil {
		return malformed(err)
	}
	if first != json.Delim('{') {
		return fault(`The body is not a JSON object; send one like {"field": value}.`)
	}
	if err := object(d, m.ProtoReflect()); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fault("There is something after the JSON object; send one object and nothing else.")
	}
	return nil
}

// fault is a sentence for whoever sent the body.
func fault(format string, args ...any) error { return problem.Malformed(fmt.Sprintf(format, args...)) }

func malformed(err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fault("The body is not valid JSON: %s at byte %d; correct it and send it again.", syntax.Error(), syntax.Offset)
	}
	return fault("The body is not valid JSON: it ends too early; send the whole object.")
}

func object(d *json.Decoder, m protoreflect.Message) error {
	seen := map[string]bool{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return malformed(err)
		}
		name, _ := token.(string)
		field := m.Descriptor().Fields().ByTextName(name)
		if field == nil {
			return fault("Unknown field %s; %s.", quote(name), known(m.Descriptor()))
		}
		if seen[name] {
			return fault("Field %s is there twice; send it once.", quote(name))
		}
		seen[name] = true
		if err := value(d, m, field); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return malformed(err)
	}
	return nil
}

func known(d protoreflect.MessageDescriptor) string {
	if d.Fields().Len() == 0 {
		return "this request takes none"
	}
	names := make([]string, d.Fields().Len())
	for i := range names {
		names[i] = d.Fields().Get(i).TextName()
	}
	return "known fields are " + strings.Join(names, ", ")
}

// quote keeps what a client sent short in what it is told.
func quote(s string) string {
	if utf8.RuneCountInString(s) > 64 {
		s = string([]rune(s)[:64]) + "…"
	}
	return strconv.Quote(s)
}

func value(d *json.Decoder, m protoreflect.Message, field protoreflect.FieldDescriptor) error {
	token, err := d.Token()
	if err != nil {
		return malformed(err)
	}
	if token == nil {
		return nil
	}
	switch {
	case field.IsMap():
		if token != json.Delim('{') {
			return fault("Field %s must be an object whose values are %ss.", quote(field.TextName()), valueOf(field))
		}
		return mapOf(d, m.Mutable(field).Map(), field)
	case field.IsList():
		if token != json.Delim('[') {
			return fault("Field %s must be an array of strings.", quote(field.TextName()))
		}
		return stringList(d, m.Mutable(field).List(), field)
	case isTimestamp(field):
		text, ok := token.(string)
		at, err := time.Parse(time.RFC3339, text)
		if !ok || err != nil || timestamppb.New(at).CheckValid() != nil {
			return fault("Field %s must be a time as RFC 3339 has it, like \"2030-12-31T23:59:59Z\".", quote(field.TextName()))
		}
		m.Set(field, protoreflect.ValueOfMessage(timestamppb.New(at).ProtoReflect()))
		return nil
	case isWrapper(field):
		inner := m.NewField(field).Message()
		v, err := scalar(token, inner.Descriptor().Fields().ByName("value"), field.TextName())
		if err != nil {
			return err
		}
		inner.Set(inner.Descriptor().Fields().ByName("value"), v)
		m.Set(field, protoreflect.ValueOfMessage(inner))
		return nil
	default:
		v, err := scalar(token, field, field.TextName())
		if err != nil {
			return err
		}
		m.Set(field, v)
		return nil
	}
}

func isWrapper(field protoreflect.FieldDescriptor) bool {
	return field.Kind() == protoreflect.MessageKind && !field.IsList() &&
		field.Message().ParentFile().Path() == "google/protobuf/wrappers.proto"
}

func isTimestamp(field protoreflect.FieldDescriptor) bool {
	return field.Kind() == protoreflect.MessageKind && !field.IsList() && field.Message().FullName() == "google.protobuf.Timestamp"
}

func stringList(d *json.Decoder, into protoreflect.List, field protoreflect.FieldDescriptor) error {
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return malformed(err)
		}
		text, ok := token.(string)
		if !ok || field.Kind() != protoreflect.StringKind {
			return fault("Field %s must be an array of strings.", quote(field.TextName()))
		}
		into.Append(protoreflect.ValueOfString(text))
	}
	if _, err := d.Token(); err != nil {
		return malformed(err)
	}
	return nil
}

func scalar(token json.Token, field protoreflect.FieldDescriptor, name string) (protoreflect.Value, error) {
	switch field.Kind() {
	case protoreflect.StringKind:
		if s, ok := token.(string); ok {
			return protoreflect.ValueOfString(s), nil
		}
		return protoreflect.Value{}, fault("Field %s must be a string.", quote(name))
	case protoreflect.BoolKind:
		if b, ok := token.(bool); ok {
			return protoreflect.ValueOfBool(b), nil
		}
		return protoreflect.Value{}, fault("Field %s must be true or false.", quote(name))
	case protoreflect.Int32Kind:
		n, ok := token.(json.Number)
		i, whole := wholeNumber(n)
		if !ok || !whole {
			return protoreflect.Value{}, fault("Field %s must be a whole number, without quotes.", quote(name))
		}
		return protoreflect.ValueOfInt32(int32(min(max(i, math.MinInt32), math.MaxInt32))), nil
	case protoreflect.Uint64Kind:
		n, ok := token.(json.Number)
		i, err := strconv.ParseUint(n.String(), 10, 64)
		if !ok || err != nil {
			return protoreflect.Value{}, fault("Field %s must be a whole number from 0 to %d, without quotes.", quote(name), uint64(math.MaxUint64))
		}
		return protoreflect.ValueOfUint64(i), nil
	default:
		return protoreflect.Value{}, fault("Field %s cannot be sent as JSON.", quote(name))
	}
}

func wholeNumber(n json.Number) (int64, bool) {
	i, err := strconv.ParseInt(n.String(), 10, 64)
	// Out of range still gives the nearest int64.
	return i, err == nil || errors.Is(err, strconv.ErrRange)
}

// valueOf names what the values of a map are.
func valueOf(field protoreflect.FieldDescriptor) string {
	if field.MapValue().Kind() == protoreflect.Int32Kind {
		return "whole number"
	}
	return "string"
}

func mapOf(d *json.Decoder, into protoreflect.Map, field protoreflect.FieldDescriptor) error {
	name := field.TextName()
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return malformed(err)
		}
		key, _ := token.(string)
		if into.Has(protoreflect.ValueOfString(key).MapKey()) {
			return fault("Field %s has %s twice; send it once.", quote(name), quote(key))
		}
		if token, err = d.Token(); err != nil {
			return malformed(err)
		}
		if field.MapValue().Kind() == protoreflect.Int32Kind {
			v, err := scalar(token, field.MapValue(), name+"."+key)
			if err != nil {
				return err
			}
			into.Set(protoreflect.ValueOfString(key).MapKey(), v)
			continue
		}
		text, ok := token.(string)
		if !ok {
			return fault("Field %s must have strings as values, and %s is none; put it in quotes.", quote(name), quote(key))
		}
		into.Set(protoreflect.ValueOfString(key).MapKey(), protoreflect.ValueOfString(text))
	}
	if _, err := d.Token(); err != nil {
		return malformed(err)
	}
	return nil
}
