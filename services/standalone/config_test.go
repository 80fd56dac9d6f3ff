package standalone_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-paas/slipway/libs/config"
	"github.com/slipway-paas/slipway/libs/observe"
	"github.com/slipway-paas/slipway/services/standalone"
)

func load(t *testing.T, yaml string, args ...string) (standalone.Config, error) {
	t.Helper()
	if yaml != "" {
		path := filepath.Join(t.TempDir(), "slipway.yaml")
		if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	c := standalone.DefaultConfig()
	return c, config.Load("slipwayd", args, nil, &c)
}

func TestTheDefaultsAreThoseOfTheManual(t *testing.T) {
	t.Parallel()
	c := standalone.DefaultConfig()
	if err := config.Load("slipwayd", nil, nil, &c); err != nil {
		t.Fatal(err)
	}
	got := strings.Join([]string{c.Listen, c.EdgeHTTP, c.EdgeHTTPS, c.Registry, c.NATS, c.BaseDomain}, " ")
	if want := "127.0.0.1:8080 :8000 :8443 127.0.0.1:5055 127.0.0.1:4222 apps.localhost"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if c.Rollout.HealthyTimeout <= 0 || len(c.AllowedRegistries) == 0 {
		t.Errorf("the scheduler's defaults are missing: %+v", c)
	}
}

func TestEverythingCanBeSaidInYAML(t *testing.T) {
	t.Parallel()
	_, err := load(t, `
data-dir: /srv/slipway
listen: 127.0.0.1:9000
nats: nats://10.0.0.1:4222,nats://10.0.0.2:4222
nats-key: /etc/slipway/platform.nk
database-url: postgres://slipway@db/slipway
allowed-registries: [registry.example.com/]
rollout: {healthy-timeout: 20s, drain: 1s}
node: {memory-mb: 4096}
tiers:
  - {name: Small, slug: small, payment_method: buddo_points, monthly_cost_points: 5, memory_limit_mb: 64, cpu_limit_millicores: 100, ad_reach_multiplier: 1}
`)
	if err != nil {
		t.Error(err)
	}
}

func TestWrongSettingsAreRefusedWithTheReason(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]struct {
		yaml string
		args []string
	}{
		"--listen: \"8080\" must be host:port":                           {args: []string{"--listen", "8080"}},
		"--edge-http: \":99999\" must be host:port":                      {args: []string{"--edge-http", ":99999"}},
		"--registry: \"somewhere:5055\" must be an IP":                   {args: []string{"--registry", "somewhere:5055"}},
		"--listen and --registry: both want port 5055":                   {args: []string{"--listen", "127.0.0.1:5055"}},
		"--base-domain: \"Apps_Localhost\" is no domain":                 {args: []string{"--base-domain", "Apps_Localhost"}},
		"--database-url: it must start with postgres://":                 {args: []string{"--database-url", "mysql://x"}},
		"--subscriptions-listen: 0.0.0.0:4223 is open to other machines": {args: []string{"--subscriptions-listen", "0.0.0.0:4223"}},
		"--subscriptions-tls-cert, --subscriptions-tls-key: one needs":   {args: []string{"--subscriptions-tls-key", "x.key"}},
		"--nats-leaf: \"10.0.0.1:7422\" must be on this machine":         {args: []string{"--nats-leaf", "10.0.0.1:7422"}},
		"--nats-key: it is for a NATS server of your own":                {args: []string{"--nats-key", "x.nk"}},
		"--nats: \"nats://\" must be host:port, or nats://":              {args: []string{"--nats", "nats://"}},
		"--data-dir: name a directory":                                   {args: []string{"--data-dir", ""}},
		"unknown key \"listne\"":                                         {yaml: "listne: x"},
		"--rollout-grace":                                                {args: []string{"--rollout-grace", "soon"}},
		"--node-id":                                                      {args: []string{"--node-id", "a.b"}},
		"--node-prune-images-after: 1s is too short":                     {yaml: "node: {prune-images-after: 1s}"},
		"--node-prune-images-after: -1h0m0s is too short":                {args: []string{"--node-prune-images-after", "-1h"}},
		"--node-prune-images-after":                                      {args: []string{"--node-prune-images-after", "never"}},
		"probe path \"healthz\" is none: it must begin with /":           {args: []string{"--rollout-probe-path", "healthz"}},
		"--edge-trusted-proxies: \"me\" is no address range":             {args: []string{"--edge-trusted-proxies", "me"}},
		"--edge-eject-for: 1ms must be between":                          {args: []string{"--edge-eject-for", "1ms"}},
	} {
		if _, err := load(t, c.yaml, c.args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v %s: got %v, want %s", c.args, c.yaml, err, want)
		}
	}
}

func TestATakenAddressIsSaidBeforeAnythingStarts(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	observer, err := observe.Setup(t.Context(), "slipwayd", "test", t.Output())
	if err != nil {
		t.Fatal(err)
	}
	c := standalone.DefaultConfig()
	dir := filepath.Join(t.TempDir(), "data")
	if err := config.Load("slipwayd", []string{"--data-dir", dir, "--registry", taken.Addr().String()}, nil, &c); err != nil {
		t.Fatal(err)
	}
	err = standalone.Run(t.Context(), c, standalone.Options{Observer: observer})
	if err == nil || !strings.Contains(err.Error(), "--registry: "+taken.Addr().String()+" is in use") || !strings.Contains(err.Error(), "SLIPWAY_REGISTRY") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "postgres")); err == nil {
		t.Error("a database was made all the same")
	}
}
