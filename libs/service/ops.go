package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/slipway-paas/slipway/libs/rpc"
)

// Ops answers those who run the process: metrics, and whether it is well.
type Ops struct {
	http     *http.Server
	listener net.Listener
}

func (p *Process) listenRPC() (net.Listener, error) {
	switch {
	case p.settings.RPCListen == "":
		return nil, errors.New("--rpc-listen: this service answers calls and needs an address, e.g. 127.0.0.1:0")
	case !p.tls.On() && !rpc.Loopback(p.settings.RPCListen):
		return nil, fmt.Errorf("--rpc-listen: %s is open to other machines, and anybody there could call this service: "+
			"give --tls-ca and --tls-identity (see slipwayd certs), or an address like 127.0.0.1:9101", p.settings.RPCListen)
	}
	listener, err := net.Listen("tcp", p.settings.RPCListen)
	if err != nil {
		return nil, fmt.Errorf("--rpc-listen: %w", err)
	}
	return listener, nil
}

// ListenOps listens on the address of --ops-listen; see OpsHandler.
func ListenOps(ctx context.Context, address string, metrics http.Handler, checks map[string]func() error) (*Ops, error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("--ops-listen: %w", err)
	}
	return &Ops{listener: listener, http: &http.Server{
		Handler:           OpsHandler(metrics, checks),
		ReadHeaderTimeout: 5 * time.Second,
		WriteTimeout:      30 * time.Second,
		MaxHeaderBytes:    16 << 10,
	}}, nil
}

// Address is host:port as it is really listened on.
func (s *Ops) Address() string { return s.listener.Addr().String() }

// Run serves until ctx ends.
func (s *Ops) Run(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- s.http.Serve(s.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve metrics and probes: %w", err)
	case <-ctx.Done():
		return s.http.Close()
	}
}

// OpsHandler answers /metrics; /healthz, 200 while the process lives; and /readyz,
// 200 when all checks pass or 503, with {"ready":…,"waiting_for":{name:reason}}.
func OpsHandler(metrics http.Handler, checks map[string]func() error) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		waiting := waitingFor(checks)
		w.Header().Set("Content-Type", "application/json")
		if len(waiting) > 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		// The status line is out: a failed write means the client is gone.
		_ = json.NewEncoder(w).Encode(map[string]any{"ready": len(waiting) == 0, "waiting_for": waiting})
	})
	return mux
}

func waitingFor(checks map[string]func() error) map[string]string {
	waiting := map[string]string{}
	for name, ready := range checks {
		if err := ready(); err != nil {
			waiting[name] = err.Error()
		}
	}
	return waiting
}

// followReadiness tells the gRPC health service twice a second whether all is ready.
func followReadiness(ctx context.Context, checks map[string]func() error, set func(bool)) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		set(len(waitingFor(checks)) == 0)
		select {
		case <-ctx.Done():
			set(false)
			return nil
		case <-tick.C:
		}
	}
}
