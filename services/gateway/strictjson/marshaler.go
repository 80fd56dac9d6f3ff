package strictjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Marshaler is the package as grpc-gateway takes it.
type Marshaler struct{}

var _ runtime.Marshaler = Marshaler{}

var output = protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}

// ContentType implements runtime.Marshaler.
func (Marshaler) ContentType(any) string { return "application/json" }

// Marshal writes a message, or a list of messages, as compact JSON, where every number is one.
func (c Marshaler) Marshal(v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return c.list(v)
	}
	loose, err := output.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("write %T as JSON: %w", v, err)
	}
	if d := m.ProtoReflect().Descriptor(); hasQuoted(d, map[protoreflect.FullName]bool{}) {
		if loose, err = unquote(loose, d); err != nil {
			return nil, err
		}
	}
	// protojson varies its spaces on purpose; one shape is friendlier.
	var compact bytes.Buffer
	compact.Grow(len(loose) + 1)
	if err := json.Compact(&compact, loose); err != nil {
		return nil, fmt.Errorf("compact the JSON of %T: %w", v, err)
	}
	compact.WriteByte('\n')
	return compact.Bytes(), nil
}

// list writes the messages of an answer that is a bare array.
func (c Marshaler) list(v any) ([]byte, error) {
	messages := reflect.ValueOf(v)
	if messages.Kind() != reflect.Slice || !messages.Type().Elem().Implements(reflect.TypeFor[proto.Message]()) {
		return nil, fmt.Errorf("%T is no message of the API", v)
	}
	out := []byte{'['}
	for i := range messages.Len() {
		text, err := c.Marshal(messages.Index(i).Interface())
		if err != nil {
			return nil, err
		}
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, bytes.TrimSuffix(text, []byte{'\n'})...)
	}
	return append(out, ']', '\n'), nil
}

// Unmarshal reads as the package's Unmarshal.
func (Marshaler) Unmarshal(data []byte, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is no message of the API", v)
	}
	return Unmarshal(data, m)
}

// NewDecoder implements runtime.Marshaler; the reader must be bounded.
func (c Marshaler) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		data, err := io.ReadAll(r)
		if err != nil {
			return fmt.Errorf("read the body: %w", err)
		}
		return c.Unmarshal(data, v)
	})
}

// NewEncoder implements runtime.Marshaler.
func (c Marshaler) NewEncoder(w io.Writer) runtime.Encoder {
	return runtime.EncoderFunc(func(v any) error {
		data, err := c.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
}
