package service_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/slipway-paas/slipway/libs/rpc"
	"github.com/slipway-paas/slipway/libs/service"
)

type settings struct {
	service.Settings
	Colour string `koanf:"colour" default:"green"`
}

// worker becomes ready when it is told to.
type worker struct {
	ready   atomic.Bool
	stopped atomic.Bool
}

func (w *worker) Run(ctx context.Context) error {
	<-ctx.Done()
	w.stopped.Store(true)
	return nil
}

func (w *worker) Ready() error {
	if !w.ready.Load() {
		return errors.New("still waking up")
	}
	return nil
}

func TestAProcessStartsServesAndStops(t *testing.T) {
	t.Setenv("SLIPWAY_LOG_LEVEL", "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	logs, stderr := io.Pipe()
	lines := json.NewDecoder(bufio.NewReader(logs))
	part := &worker{}
	var c settings
	code := make(chan int, 1)
	go func() {
		code <- service.Run(ctx, "parrot", "v1", []string{"--rpc-listen", "127.0.0.1:0", "--colour", "red"}, nil, io.Discard, stderr, &c,
			func(_ context.Context, p *service.Process) error {
				p.Add("worker", part)
				p.RPC()
				return nil
			})
		stderr.Close()
	}()

	var grpcAddress, ops string
	for ops == "" {
		var line struct{ Msg, Address, Ops string }
		if err := lines.Decode(&line); err != nil {
			t.Fatal(err)
		}
		if line.Address != "" {
			grpcAddress = line.Address
		}
		ops = line.Ops
	}
	go func() { _, _ = io.Copy(io.Discard, io.MultiReader(lines.Buffered(), logs)) }()
	if c.Colour != "red" {
		t.Errorf("colour is %q", c.Colour)
	}

	if status, body := get(t, "http://"+ops+"/readyz"); status != 503 || !strings.Contains(body, "still waking up") {
		t.Errorf("readyz of a sleeping worker: %d %s", status, body)
	}
	if status, _ := get(t, "http://"+ops+"/healthz"); status != 200 {
		t.Errorf("healthz: %d", status)
	}
	part.ready.Store(true)
	if status, body := get(t, "http://"+ops+"/readyz"); status != 200 {
		t.Errorf("readyz: %d %s", status, body)
	}
	if status, body := get(t, "http://"+ops+"/metrics"); status != 200 || !strings.Contains(body, "slipway_build_info") {
		t.Errorf("metrics: %d %s", status, body)
	}

	conn, err := rpc.Dial(grpcAddress)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	until(t, "gRPC health follows readiness", func() bool {
		res, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
		return err == nil && res.GetStatus() == healthpb.HealthCheckResponse_SERVING
	})

	cancel()
	select {
	case got := <-code:
		if got != service.ExitOK || !part.stopped.Load() {
			t.Errorf("exit code %d, worker stopped: %v", got, part.stopped.Load())
		}
	case <-time.After(10 * time.Second):
		t.Fatal("did not stop")
	}
}

func TestAWrongCallEndsWithAReason(t *testing.T) {
	t.Setenv("SLIPWAY_LOG_LEVEL", "")
	for name, c := range map[string]struct {
		args  []string
		build service.Build
		code  int
		want  string
	}{
		"unknown flag": {args: []string{"--color", "red"}, code: service.ExitUsage, want: "--color"},
		"no address for calls": {code: service.ExitFailed, want: "--rpc-listen", build: func(_ context.Context, p *service.Process) error {
			p.RPC()
			return nil
		}},
		"half of TLS": {args: []string{"--tls-ca", "ca.crt"}, code: service.ExitUsage, want: "--tls-ca without --tls-identity"},
		"calls in plain text from other machines": {args: []string{"--rpc-listen", ":0"}, code: service.ExitFailed, want: "open to other machines", build: func(_ context.Context, p *service.Process) error {
			p.RPC("gateway")
			return nil
		}},
		"calls in plain text to other machines": {code: service.ExitFailed, want: "billing at 10.0.0.9:9103 is beyond this machine", build: func(_ context.Context, p *service.Process) error {
			_, err := p.Dial("billing", "10.0.0.9:9103")
			return err
		}},
		"a part is missing": {code: service.ExitFailed, want: "no seeds left", build: func(context.Context, *service.Process) error {
			return errors.New("no seeds left")
		}},
		"no NATS": {args: []string{"--nats", "nats://127.0.0.1:1"}, code: service.ExitFailed, want: "connect to NATS at nats://127.0.0.1:1", build: func(_ context.Context, p *service.Process) error {
			_, _, err := p.NATS("")
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			got := service.Run(t.Context(), "parrot", "v1", c.args, nil, io.Discard, &stderr, &settings{}, c.build)
			if got != c.code || !strings.Contains(stderr.String(), c.want) {
				t.Errorf("code %d, %s", got, stderr.String())
			}
		})
	}
}

func TestAGroupStopsInReverseAndEndsWithItsFirstFailure(t *testing.T) {
	t.Parallel()
	group := service.NewGroup(slog.New(slog.DiscardHandler))
	var order []string
	wait := func(name string) service.RunFunc {
		return func(ctx context.Context) error {
			<-ctx.Done()
			order = append(order, name)
			return nil
		}
	}
	group.Add("database", wait("database"))
	group.Add("worker", wait("worker"))
	group.Add("fuse", service.RunFunc(func(context.Context) error { return errors.New("blown") }))
	err := group.Run(t.Context())
	if err == nil || err.Error() != "fuse: blown" {
		t.Errorf("got %v", err)
	}
	if got := strings.Join(order, " "); got != "worker database" {
		t.Errorf("stopped in the order %s", got)
	}
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(5 * time.Second); !done(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long: %s", what)
		}
	}
}
