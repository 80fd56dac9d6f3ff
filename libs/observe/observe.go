// Package observe gives a process its logs, traces and metrics: one JSON line a
// log record with the trace it belongs to, OpenTelemetry spans, and Prometheus
// figures at /metrics. Spans leave the process only when the standard OTEL_*
// variables name an exporter; otherwise they cost an id and nothing more.
package observe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Observer is what a process looks at itself with. Make one at start, hand its
// parts to who needs them, Shutdown at the end.
type Observer struct {
	// Log writes JSON lines with trace_id and span_id when the context has them.
	Log *slog.Logger
	// Registry is the process's own Prometheus registry.
	Registry *prometheus.Registry
	// Tracing says whether spans are exported.
	Tracing bool

	tracer *sdktrace.TracerProvider
	meter  *sdkmetric.MeterProvider
}

// Setup makes the observer of one process and makes it OpenTelemetry's default; its log
// is slog's, for libraries that write to that. Logs go to w, from the level in SLIPWAY_LOG_LEVEL (debug, info, warn, error;
// info when unset). It fails when an exporter that the environment asks for
// cannot be made, or the level is none.
func Setup(ctx context.Context, service, version string, w io.Writer) (*Observer, error) {
	level, err := logLevel(os.Getenv("SLIPWAY_LOG_LEVEL"))
	if err != nil {
		return nil, err
	}
	log := slog.New(traceHandler{slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})}).With("service", service)
	slog.SetDefault(log)

	res, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", service), attribute.String("service.version", version)),
		resource.WithFromEnv(),
	)
	if err != nil {
		return nil, fmt.Errorf("describe the service to OpenTelemetry: %w", err)
	}
	o := &Observer{Log: log, Registry: prometheus.NewRegistry(), Tracing: tracingWanted(os.Getenv)}
	o.Registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		buildInfo(service, version),
	)

	options := []sdktrace.TracerProviderOption{sdktrace.WithResource(res)}
	if o.Tracing {
		exporter, err := autoexport.NewSpanExporter(ctx)
		if err != nil {
			return nil, fmt.Errorf("make the trace exporter that OTEL_* asks for: %w", err)
		}
		options = append(options, sdktrace.WithBatcher(exporter))
		log.InfoContext(ctx, "spans are exported as the OTEL_* variables say")
	} else {
		// Spans still carry ids, so that the lines of one request can be found.
		options = append(options, sdktrace.WithSampler(sdktrace.NeverSample()))
	}
	o.tracer = sdktrace.NewTracerProvider(options...)

	bridge, err := otelprom.New(otelprom.WithRegisterer(o.Registry), otelprom.WithoutScopeInfo(), otelprom.WithoutTargetInfo())
	if err != nil {
		return nil, fmt.Errorf("bridge OpenTelemetry metrics to Prometheus: %w", err)
	}
	o.meter = sdkmetric.NewMeterProvider(sdkmetric.WithReader(bridge), sdkmetric.WithResource(res))

	otel.SetTracerProvider(o.tracer)
	otel.SetMeterProvider(o.meter)
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("telemetry", "error", err) }))
	return o, nil
}

// Tracer is the tracer of one package, named by its import path's last parts.
func (o *Observer) Tracer(name string) trace.Tracer { return o.tracer.Tracer(name) }

// Meter is the process's meter; its instruments appear at /metrics. There is one, so
// that parts which count the same thing add up instead of colliding.
func (o *Observer) Meter() metric.Meter { return o.meter.Meter("slipway") }

// Metrics serves the registry in Prometheus' text format.
func (o *Observer) Metrics() http.Handler {
	return promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{Registry: o.Registry, MaxRequestsInFlight: 4})
}

// Shutdown sends what is still buffered and stops the exporters; ctx bounds it.
func (o *Observer) Shutdown(ctx context.Context) error {
	return errors.Join(o.tracer.Shutdown(ctx), o.meter.Shutdown(ctx))
}

// tracingWanted follows the standard variables, but stays off when none is set.
func tracingWanted(getenv func(string) string) bool {
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") {
		return false
	}
	if exporter := getenv("OTEL_TRACES_EXPORTER"); exporter != "" {
		return exporter != "none"
	}
	return getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
}

func logLevel(text string) (slog.Level, error) {
	if text == "" {
		return slog.LevelInfo, nil
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(text)); err != nil {
		return 0, fmt.Errorf("environment variable SLIPWAY_LOG_LEVEL: %q is no level; use debug, info, warn or error", text)
	}
	return level, nil
}

func buildInfo(service, version string) prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "slipway_build_info",
		Help:        "Which service and version this process is; always 1.",
		ConstLabels: prometheus.Labels{"service": service, "version": version},
	})
	g.Set(1)
	return g
}
