package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-paas/slipway/libs/config"
)

type kept struct {
	Name  string        `koanf:"name" default:"one"`
	URL   string        `koanf:"url" secret:"true"`
	Wait  time.Duration `koanf:"wait"`
	Hosts []string      `koanf:"hosts"`
	Node  struct {
		Memory int `koanf:"memory"`
	} `koanf:"node"`
	Tiers []struct {
		Slug string `koanf:"slug"`
	} `koanf:"tiers"`
}

func TestWhatIsEffectiveIsAConfigFileWithoutItsSecrets(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "config.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("url: postgres://u:hidden@h\nhosts: [a, b]\nnode: {memory: 5}\ntiers: [{slug: small}]\n")
	var first, second kept
	if err := config.Load("test", []string{"--config", file, "--wait", "90s"}, nil, &first); err != nil {
		t.Fatal(err)
	}
	text, err := config.Effective(first)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "hidden") {
		t.Errorf("a secret is told:\n%s", text)
	}
	write(string(text))
	if err := config.Load("test", []string{"--config", file}, nil, &second); err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	first.URL = ""
	if diff := cmp.Diff(first, second); diff != "" {
		t.Error(diff)
	}
}
