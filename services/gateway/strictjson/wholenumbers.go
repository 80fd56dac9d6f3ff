package strictjson

import (
	"bytes"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// hasQuoted reports whether protojson puts some number of such a message in quotes, as
// it does with all of 64 bits. seen are the types that have been looked at.
func hasQuoted(m protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) bool {
	if seen[m.FullName()] || foreign(m) {
		return false
	}
	seen[m.FullName()] = true
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		if f.IsMap() {
			f = f.MapValue()
		}
		if is64(f.Kind()) || f.Message() != nil && hasQuoted(f.Message(), seen) {
			return true
		}
	}
	return false
}

// foreign messages have JSON of their own.
func foreign(m protoreflect.MessageDescriptor) bool {
	return m.ParentFile().Package() == "google.protobuf"
}

func is64(k protoreflect.Kind) bool {
	switch k {
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return true
	}
	return false
}

// unquote writes protojson's JSON of such a message with numbers where it has quotes.
func unquote(text []byte, m protoreflect.MessageDescriptor) ([]byte, error) {
	u := &unquoter{in: json.NewDecoder(bytes.NewReader(text))}
	if err := u.message(m); err != nil {
		return nil, fmt.Errorf("write the numbers of a %s: %w", m.Name(), err)
	}
	return u.out.Bytes(), nil
}

type unquoter struct {
	in  *json.Decoder
	out bytes.Buffer
}

func (u *unquoter) message(m protoreflect.MessageDescriptor) error {
	return u.object(func(key string) error {
		f := m.Fields().ByName(protoreflect.Name(key))
		switch {
		case f == nil:
			return u.as(nil)
		case f.IsMap():
			return u.object(func(string) error { return u.as(f.MapValue()) })
		case !f.IsList():
			return u.as(f)
		}
		return u.list(func() error { return u.as(f) })
	})
}

// as writes one value of a field; nil is for one that has no numbers of ours.
func (u *unquoter) as(f protoreflect.FieldDescriptor) error {
	if f != nil && f.Message() != nil && !foreign(f.Message()) {
		return u.message(f.Message())
	}
	var raw json.RawMessage
	if err := u.in.Decode(&raw); err != nil {
		return err
	}
	if f != nil && is64(f.Kind()) {
		raw = bytes.Trim(raw, `"`)
	}
	u.out.Write(raw)
	return nil
}

// object writes an object, or null.
func (u *unquoter) object(value func(key string) error) error {
	return u.within('{', '}', func() error {
		key, err := u.in.Token()
		if err != nil {
			return err
		}
		name, _ := key.(string)
		text, err := json.Marshal(name)
		if err != nil {
			return err
		}
		u.out.Write(text)
		u.out.WriteByte(':')
		return value(name)
	})
}

func (u *unquoter) list(value func() error) error { return u.within('[', ']', value) }

func (u *unquoter) within(begin, end byte, element func() error) error {
	token, err := u.in.Token()
	if err != nil {
		return err
	}
	if token == nil {
		u.out.WriteString("null")
		return nil
	}
	if token != json.Delim(begin) {
		return fmt.Errorf("%v is not where %c is", token, begin)
	}
	u.out.WriteByte(begin)
	for first := true; u.in.More(); first = false {
		if !first {
			u.out.WriteByte(',')
		}
		if err := element(); err != nil {
			return err
		}
	}
	u.out.WriteByte(end)
	_, err = u.in.Token()
	return err
}
