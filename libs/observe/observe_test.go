package observe_test

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace"

	"github.com/slipway-paas/slipway/libs/observe"
)

// One story, because Setup makes the process's own defaults and reads its variables.
func TestALineCanBeFoundByItsTraceAndAFigureByItsName(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "")
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	t.Setenv("SLIPWAY_LOG_LEVEL", "")
	var out bytes.Buffer
	o, err := observe.Setup(t.Context(), "parrot", "v1", &out)
	if err != nil {
		t.Fatal(err)
	}
	if o.Tracing {
		t.Error("traces are exported although nobody asked")
	}

	ctx, span := o.Tracer("test").Start(t.Context(), "squawk")
	o.Log.InfoContext(ctx, "said")
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	if line["trace_id"] != span.SpanContext().TraceID().String() || line["service"] != "parrot" {
		t.Errorf("the line is %v", line)
	}

	parent := observe.TraceParent(ctx)
	there := observe.WithTraceParent(t.Context(), parent)
	if got := trace.SpanContextFromContext(there); got.TraceID() != span.SpanContext().TraceID() || !got.IsRemote() {
		t.Errorf("%q became %v", parent, got)
	}
	if observe.WithTraceParent(t.Context(), "nonsense") == nil || observe.TraceParent(t.Context()) != "" {
		t.Error("a context without a trace has got one")
	}
	span.End()

	counter, err := o.Meter().Int64Counter("parrot.squawks")
	if err != nil {
		t.Fatal(err)
	}
	counter.Add(ctx, 3)
	w := httptest.NewRecorder()
	o.Metrics().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{"parrot_squawks_total 3", `slipway_build_info{service="parrot",version="v1"} 1`, "go_goroutines"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("/metrics lacks %q", want)
		}
	}
	if err := o.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}

	t.Setenv("OTEL_TRACES_EXPORTER", "console")
	loud, err := observe.Setup(t.Context(), "parrot", "v1", &out)
	if err != nil || !loud.Tracing {
		t.Fatalf("the asked-for exporter is not there: %v", err)
	}
	if err := loud.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}

	t.Setenv("SLIPWAY_LOG_LEVEL", "shouting")
	if _, err := observe.Setup(t.Context(), "parrot", "v1", &out); err == nil || !strings.Contains(err.Error(), `"shouting"`) {
		t.Errorf("a wrong level gave %v", err)
	}
}
