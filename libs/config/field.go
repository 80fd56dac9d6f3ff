package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// field is one setting: where it comes from and what it must be.
type field struct {
	key     string
	usage   string
	kind    reflect.Type
	scalar  bool // can be given as one text
	initial any  // from the default tag; nil for none
	preset  string
}

func (f field) flag() string { return strings.ReplaceAll(f.key, ".", "-") }

func (f field) env() string {
	return EnvPrefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(f.key))
}

// parse reads the setting from one text.
func (f field) parse(text string) (any, error) {
	switch {
	case f.kind == reflect.TypeFor[time.Duration]():
		return parseDuration(text)
	case f.kind.Kind() == reflect.Slice:
		return splitList(text), nil
	}
	switch f.kind.Kind() {
	case reflect.String:
		return text, nil
	case reflect.Bool:
		v, err := strconv.ParseBool(text)
		if err != nil {
			return nil, fmt.Errorf("%q is neither true nor false", text)
		}
		return v, nil
	case reflect.Float64:
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is no number", text)
		}
		return v, nil
	default:
		v, err := strconv.ParseInt(text, 10, f.kind.Bits())
		if err != nil {
			return nil, fmt.Errorf("%q is no whole number of that size", text)
		}
		return v, nil
	}
}

func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is no duration; write it like 30s or 5m", text)
	}
	return d, nil
}

func splitList(text string) []string {
	list := []string{}
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}

// fieldsOf lists the settings of a struct, depth first, in order.
func fieldsOf(value reflect.Value, prefix string) ([]field, error) {
	var fields []field
	for i := range value.NumField() {
		tag := value.Type().Field(i)
		name, named := tag.Tag.Lookup("koanf")
		isStruct := tag.Type.Kind() == reflect.Struct
		if tag.Anonymous && isStruct && !named {
			inner, err := fieldsOf(value.Field(i), prefix)
			if err != nil {
				return nil, err
			}
			fields = append(fields, inner...)
			continue
		}
		if !named || name == "-" {
			continue
		}
		if isStruct {
			inner, err := fieldsOf(value.Field(i), prefix+name+".")
			if err != nil {
				return nil, err
			}
			fields = append(fields, inner...)
			continue
		}
		f := field{key: prefix + name, usage: tag.Tag.Get("usage"), kind: tag.Type, scalar: isScalar(tag.Type)}
		if err := f.setInitial(tag, value.Field(i)); err != nil {
			return nil, err
		}
		fields = append(fields, f)
	}
	return fields, nil
}

// setInitial takes what the struct holds already before the default tag.
func (f *field) setInitial(tag reflect.StructField, now reflect.Value) error {
	if !now.IsZero() {
		if f.scalar {
			f.preset = strings.Trim(strings.ReplaceAll(fmt.Sprint(now.Interface()), " ", ","), "[]")
		}
		return nil
	}
	text, ok := tag.Tag.Lookup("default")
	if !ok {
		return nil
	}
	value, err := f.parse(text)
	if err != nil {
		return fmt.Errorf("config: default of %s: %w", f.key, err)
	}
	f.initial, f.preset = value, text
	return nil
}

func isScalar(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return true
	case reflect.Slice:
		return t.Elem().Kind() == reflect.String
	default:
		return false
	}
}

// flagValue makes a field a pflag.Value that notes what it was set to.
type flagValue struct {
	field  field
	values map[string]any
}

func (v *flagValue) Set(text string) error {
	value, err := v.field.parse(text)
	if err != nil {
		return err
	}
	v.values[v.field.key] = value
	return nil
}

func (v *flagValue) String() string {
	if v.field.kind == nil {
		return ""
	}
	return v.field.preset
}

func (v *flagValue) Type() string {
	switch {
	case v.field.kind == reflect.TypeFor[time.Duration]():
		return "duration"
	case v.field.kind.Kind() == reflect.Slice:
		return "list"
	case v.field.kind.Kind() == reflect.Bool:
		return "bool"
	case v.field.kind.Kind() == reflect.String:
		return "text"
	default:
		return "number"
	}
}
