package edge

import (
	"strings"
	"testing"
	"time"
)

func TestAWrongSettingIsRefusedWithAllReasons(t *testing.T) {
	t.Parallel()
	err := Config{HTTP: "8000", HTTPS: "x", Metrics: "0.0.0.0:9464", EdgeID: "a.b", LogLevel: "loud", TrustedProxies: []string{"me"}, Grace: -time.Second}.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, flag := range []string{"--http:", "--https:", "--metrics:", "--edge-id:", "--log-level:", "--grace:", "--trusted-proxies:", "--nats:", "--data-dir:"} {
		if !strings.Contains(err.Error(), flag) {
			t.Errorf("nothing is said of %s in: %v", flag, err)
		}
	}
}

func TestTracingFollowsTheStandardVariables(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		env  map[string]string
		want bool
	}{
		"nothing set":       {nil, false},
		"an endpoint":       {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"}, true},
		"a trace endpoint":  {map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4317"}, true},
		"an exporter":       {map[string]string{"OTEL_TRACES_EXPORTER": "console"}, true},
		"no exporter":       {map[string]string{"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "x"}, false},
		"everything is off": {map[string]string{"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "x"}, false},
	} {
		if got := tracingWanted(func(k string) string { return c.env[k] }); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
