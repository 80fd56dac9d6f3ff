package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-paas/slipway/libs/config"
)

type common struct {
	Listen string `koanf:"listen" default:"127.0.0.1:8080" usage:"address of the API"`
}

type deadlines struct {
	Release time.Duration `koanf:"release" default:"2m" usage:"how long a release may take"`
}

type tier struct {
	Slug string `koanf:"slug"`
	MB   uint32 `koanf:"memory_mb"`
}

type settings struct {
	common
	Common2   common    `koanf:"-"`
	Workers   int       `koanf:"workers" default:"4"`
	Quiet     bool      `koanf:"quiet"`
	Allowed   []string  `koanf:"allowed" default:"docker.io"`
	Deadlines deadlines `koanf:"deadlines"`
	Tiers     []tier    `koanf:"tiers"`
}

func (s settings) Validate() error {
	if s.Workers < 1 {
		return errors.New("workers: must be at least 1")
	}
	return nil
}

func load(t *testing.T, yaml string, args, env []string) (settings, error) {
	t.Helper()
	if yaml != "" {
		path := filepath.Join(t.TempDir(), "slipway.yaml")
		if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	got := settings{Tiers: []tier{{Slug: "free", MB: 1}, {Slug: "other", MB: 2}}}
	return got, config.Load("slipwayd", args, env, &got)
}

func TestFlagsWinOverVariablesOverTheFileOverDefaults(t *testing.T) {
	t.Parallel()
	var got settings
	path := filepath.Join(t.TempDir(), "slipway.yaml")
	file := "listen: file:1\nworkers: 7\nallowed: [a, b]\ndeadlines: {release: 30s}\ntiers: [{slug: big, memory_mb: 512}]\n"
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	got.Tiers = []tier{{Slug: "free", MB: 1}, {Slug: "other", MB: 2}}
	err := config.Load("slipwayd", []string{"--listen", "flag:1", "--quiet"}, []string{
		"SLIPWAY_LISTEN=env:1", "SLIPWAY_WORKERS=9", "SLIPWAY_CONFIG=" + path, "SLIPWAY_TOKEN=other", "HOME=/",
	}, &got)
	if err != nil {
		t.Fatal(err)
	}
	want := settings{
		common: common{Listen: "flag:1"}, Workers: 9, Quiet: true, Allowed: []string{"a", "b"},
		Deadlines: deadlines{Release: 30 * time.Second}, Tiers: []tier{{Slug: "big", MB: 512}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(settings{}, common{})); diff != "" {
		t.Error(diff)
	}
}

func TestDefaultsAreFromTagsAndFromWhatWasThere(t *testing.T) {
	t.Parallel()
	got := settings{Tiers: []tier{{Slug: "free", MB: 1}}}
	if err := config.Load("slipwayd", nil, nil, &got); err != nil {
		t.Fatal(err)
	}
	want := settings{
		common: common{Listen: "127.0.0.1:8080"}, Workers: 4, Allowed: []string{"docker.io"},
		Deadlines: deadlines{Release: 2 * time.Minute}, Tiers: []tier{{Slug: "free", MB: 1}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(settings{}, common{})); diff != "" {
		t.Error(diff)
	}
}

func TestEveryWrongSettingIsRefusedWithItsKeyAndSource(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		yaml      string
		args, env []string
		want      []string
	}{
		"unknown flag":       {args: []string{"--listne", "x"}, want: []string{"command line", "--listne"}},
		"wrong flag":         {args: []string{"--workers", "many"}, want: []string{"--workers", `"many"`}},
		"argument":           {args: []string{"start"}, want: []string{"command line", `"start"`}},
		"unknown variable":   {env: []string{"SLIPWAY_LISTNE=x"}, want: []string{"SLIPWAY_LISTNE", "no such setting"}},
		"wrong variable":     {env: []string{"SLIPWAY_DEADLINES_RELEASE=soon"}, want: []string{"SLIPWAY_DEADLINES_RELEASE", `"soon"`}},
		"unknown key":        {yaml: "listne: x", want: []string{"slipway.yaml", `"listne"`}},
		"unknown nested key": {yaml: "deadlines: {relaese: 1s}", want: []string{"slipway.yaml", `"deadlines.relaese"`}},
		"unknown list key":   {yaml: "tiers: [{slug: a, mem: 1}]", want: []string{"slipway.yaml", "tiers[0]", "mem"}},
		"wrong type":         {yaml: "workers: many", want: []string{"slipway.yaml", "workers"}},
		"number for text":    {yaml: "listen: 8080", want: []string{"slipway.yaml", "listen"}},
		"bare duration":      {yaml: "deadlines: {release: 30}", want: []string{"slipway.yaml", "deadlines.release", "30s"}},
		"scalar for struct":  {yaml: "deadlines: 30s", want: []string{"slipway.yaml", "deadlines"}},
		"twice":              {yaml: "workers: 1\nworkers: 2", want: []string{"slipway.yaml", "workers"}},
		"no file":            {args: []string{"--config", "/nowhere.yaml"}, want: []string{"/nowhere.yaml"}},
		"own rule":           {args: []string{"--workers", "0"}, want: []string{"workers: must be at least 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := load(t, c.yaml, c.args, c.env)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

func TestHelpNamesEverySettingWithItsDefault(t *testing.T) {
	t.Parallel()
	_, err := load(t, "", []string{"--help"}, nil)
	var help *config.Help
	if !errors.As(err, &help) {
		t.Fatal(err)
	}
	for _, want := range []string{"--listen", "127.0.0.1:8080", "address of the API", "--deadlines-release", "(default 2m)", "--config"} {
		if !strings.Contains(help.Text, want) {
			t.Errorf("%q is not in\n%s", want, help.Text)
		}
	}
	if _, err := load(t, "", []string{"--version"}, nil); !errors.Is(err, config.ErrVersion) {
		t.Error(err)
	}
}
