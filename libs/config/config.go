// Package config reads what a command is told: flags before SLIPWAY_* environment
// variables before a YAML file (--config) before defaults. It is strict: an unknown
// key or a value of the wrong type stops the start, with the key and its source.
package config

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

// EnvPrefix begins every environment variable that Load looks at.
const EnvPrefix = "SLIPWAY_"

// ErrVersion is returned for --version.
var ErrVersion = errors.New("version asked for")

// Help is the error for --help: its text is what to print.
type Help struct{ Text string }

func (h *Help) Error() string { return h.Text }

// notOurs are variables of the same prefix that others read: the CLI, libs/observe
// and the end-to-end tests.
var notOurs = []string{"SLIPWAY_API_URL", "SLIPWAY_APP_URL", "SLIPWAY_TOKEN", "SLIPWAY_CREDENTIALS", "SLIPWAY_LOG_LEVEL", "SLIPWAY_BIN"}

// Load fills the struct that out points at. Its fields carry the tags koanf (the
// YAML key; with "-" for "." also the flag, and upper-cased with "_" the variable),
// default and usage; a field without koanf is not touched. Fields are strings, ints,
// float64s, bools, time.Durations, string lists (commas in flags and variables) or
// structs of those, whose keys are joined by "."; an embedded struct's keys are its
// outer struct's. Lists of structs can be given in YAML only. What out holds already
// goes before the default tag.
//
// Load returns *Help for --help, ErrVersion for --version, what out's own
// Validate() error says, or a sentence about the first wrong key or value.
func Load(name string, args, environ []string, out any) error {
	target := reflect.ValueOf(out)
	if target.Kind() != reflect.Pointer || target.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("config: %T is not a pointer to a struct", out)
	}
	fields, err := fieldsOf(target.Elem(), "")
	if err != nil {
		return err
	}
	flags, path, err := readFlags(name, args, fields)
	if err != nil {
		return err
	}
	env, envPath, err := readEnv(environ, fields)
	if err != nil {
		return err
	}
	if path == "" {
		path = envPath
	}
	file, err := readFile(path, fields, target.Elem().Type())
	if err != nil {
		return err
	}

	k := koanf.New(".")
	for _, layer := range []map[string]any{defaults(fields), file, env, flags} {
		if err := k.Load(confmap.Provider(layer, "."), nil); err != nil {
			return fmt.Errorf("merge configuration: %w", err)
		}
	}
	if err := decode(k, out); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if v, ok := out.(interface{ Validate() error }); ok {
		return v.Validate()
	}
	return nil
}

func readFlags(name string, args []string, fields []field) (values map[string]any, configPath string, err error) {
	set := pflag.NewFlagSet(name, pflag.ContinueOnError)
	set.SortFlags = false
	set.Usage = func() {}
	values = map[string]any{}
	for _, f := range fields {
		if !f.scalar {
			continue
		}
		flag := set.VarPF(&flagValue{field: f, values: values}, f.flag(), "", f.usage)
		if f.kind.Kind() == reflect.Bool {
			flag.NoOptDefVal = "true"
		}
	}
	set.StringVar(&configPath, "config", "", "YAML file with any of these, without the dashes")
	version := set.Bool("version", false, "print the version and stop")
	switch err := set.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		return nil, "", &Help{Text: help(name, set)}
	case err != nil:
		return nil, "", fmt.Errorf("command line: %w; see %s --help", err, name)
	case *version:
		return nil, "", ErrVersion
	case set.NArg() > 0:
		return nil, "", fmt.Errorf("command line: unexpected argument %q; see %s --help", set.Arg(0), name)
	}
	return values, configPath, nil
}

func help(name string, set *pflag.FlagSet) string {
	return "Usage: " + name + " [flags]\n\n" + set.FlagUsagesWrapped(100) +
		"\nEach flag can also be given as an environment variable, e.g. --config as " + EnvPrefix + "CONFIG,\n" +
		"or in the YAML file. Flags win over variables, variables over the file.\n"
}

func readEnv(environ []string, fields []field) (values map[string]any, configPath string, err error) {
	known := map[string]field{}
	for _, f := range fields {
		if f.scalar {
			known[f.env()] = f
		}
	}
	values = map[string]any{}
	for _, entry := range environ {
		variable, text, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(variable, EnvPrefix) || slices.Contains(notOurs, variable) {
			continue
		}
		if variable == EnvPrefix+"CONFIG" {
			configPath = text
			continue
		}
		f, ok := known[variable]
		if !ok {
			return nil, "", fmt.Errorf("environment variable %s: there is no such setting; unset it or correct its name", variable)
		}
		if values[f.key], err = f.parse(text); err != nil {
			return nil, "", fmt.Errorf("environment variable %s: %w", variable, err)
		}
	}
	return values, configPath, nil
}

func readFile(path string, fields []field, kind reflect.Type) (map[string]any, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the config file: %w", err)
	}
	tree, err := yaml.Parser().Unmarshal(text)
	if err != nil {
		return nil, fmt.Errorf("config file %s: %w", path, err)
	}
	k := koanf.New(".")
	if err := k.Load(confmap.Provider(tree, ""), nil); err != nil {
		return nil, fmt.Errorf("config file %s: %w", path, err)
	}
	for _, key := range k.Keys() {
		if !slices.ContainsFunc(fields, func(f field) bool { return f.key == key }) {
			return nil, fmt.Errorf("config file %s: unknown key %q; known keys are %s", path, key, keysOf(fields))
		}
	}
	// Decoded alone first, so that a wrong value is known to be the file's.
	if err := decode(k, reflect.New(kind).Interface()); err != nil {
		return nil, fmt.Errorf("config file %s: %w", path, err)
	}
	return k.All(), nil
}

func keysOf(fields []field) string {
	keys := make([]string, len(fields))
	for i, f := range fields {
		keys[i] = f.key
	}
	return strings.Join(keys, ", ")
}

func defaults(fields []field) map[string]any {
	values := map[string]any{}
	for _, f := range fields {
		if f.initial != nil {
			values[f.key] = f.initial
		}
	}
	return values
}

func decode(k *koanf.Koanf, out any) error {
	return k.UnmarshalWithConf("", out, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		Result: out, TagName: "koanf", ErrorUnused: true, ZeroFields: true, Squash: true,
		DecodeHook: durationFromText,
	}})
}

// durationFromText also refuses bare numbers, which would be nanoseconds.
func durationFromText(_, to reflect.Type, value any) (any, error) {
	if to != reflect.TypeFor[time.Duration]() {
		return value, nil
	}
	switch value := value.(type) {
	case time.Duration:
		return value, nil
	case string:
		return parseDuration(value)
	default:
		return nil, fmt.Errorf("%v is no duration; write it with a unit, such as 30s", value)
	}
}
