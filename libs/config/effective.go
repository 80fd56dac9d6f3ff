package config

import (
	"fmt"
	"reflect"

	"github.com/knadh/koanf/parsers/yaml"
)

// Effective is what a configuration that Load has filled says, as YAML that a config
// file may hold. Fields with the tag secret, and those that were left empty, are not
// in it.
func Effective(in any) ([]byte, error) {
	value := reflect.Indirect(reflect.ValueOf(in))
	if value.Kind() != reflect.Struct {
		return nil, fmt.Errorf("config: %T is no struct", in)
	}
	tree := map[string]any{}
	effective(value, tree)
	text, err := yaml.Parser().Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("write the configuration: %w", err)
	}
	return text, nil
}

func effective(value reflect.Value, tree map[string]any) {
	for i := range value.NumField() {
		tag, field := value.Type().Field(i), value.Field(i)
		name, named := tag.Tag.Lookup("koanf")
		_, secret := tag.Tag.Lookup("secret")
		switch {
		case tag.Anonymous && field.Kind() == reflect.Struct && !named:
			effective(field, tree)
		case !named, name == "-", secret, field.IsZero():
		default:
			tree[name] = plain(field)
		}
	}
}

// plain is the value in types that YAML has.
func plain(value reflect.Value) any {
	if text, ok := value.Interface().(fmt.Stringer); ok { // durations
		return text.String()
	}
	switch value.Kind() {
	case reflect.Struct:
		tree := map[string]any{}
		effective(value, tree)
		return tree
	case reflect.Slice:
		list := make([]any, value.Len())
		for i := range list {
			list[i] = plain(value.Index(i))
		}
		return list
	default:
		return value.Interface()
	}
}
