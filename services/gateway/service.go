// Package gateway is the only public door: REST and gRPC on one port, server-sent
// events, authentication, and one shape of errors. It translates the dialects to
// core commands and keeps nothing that the log does not hold.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"

	"github.com/slipway-paas/slipway/gen/openapi"
	healthv1 "github.com/slipway-paas/slipway/gen/slipway/health/v1"
	"github.com/slipway-paas/slipway/libs/rpc"
	"github.com/slipway-paas/slipway/services/gateway/apidoc"
	"github.com/slipway-paas/slipway/services/gateway/authn"
	"github.com/slipway-paas/slipway/services/gateway/events"
	"github.com/slipway-paas/slipway/services/gateway/oauth"
	"github.com/slipway-paas/slipway/services/gateway/ratelimit"
	"github.com/slipway-paas/slipway/services/gateway/statusview"
)

// Bounds of the public listener.
const (
	maxConnections = 16384
	maxHeader      = 32 << 10
	// requestTimeout bounds reading a request and, again, answering it. Headers have
	// no shorter one of their own: a second timer costs each poll.
	requestTimeout = 30 * time.Second
	idleTimeout    = 2 * time.Minute
	// drain is how long requests under way may take when the gateway stops.
	drain = 5 * time.Second
)

// Service is the gateway.
type Service struct {
	config  Config
	deps    Deps
	view    *statusview.View
	streams *events.Streams
	guard   *authn.Guard
	rpc     *rpc.Server
	door    *door
	address atomic.Value // string, once it listens
}

// New makes a gateway that does nothing until Run.
func New(c Config, d Deps) (*Service, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	d, err = d.withDefaults()
	if err != nil {
		return nil, err
	}
	document, err := apidoc.Build(openapi.YAML, d.Version)
	if err != nil {
		return nil, err
	}
	view := statusview.New(d.Store)
	s := &Service{
		config: c, deps: d, view: view,
		streams: events.NewStreams(d.Store, c.MaxStreamsPerOperator, c.MaxStreams, c.Heartbeat, view.Wrote),
		guard:   authn.NewGuard(d.Authenticator),
	}
	limits, err := sharedLimits(c.RateLimits, d)
	if err != nil {
		return nil, err
	}
	deploy := &deployServer{scheduler: d.Scheduler, tiers: d.Tiers, view: s.view, streams: s.streams, log: d.Log}
	all, err := routes(dialects()...)
	if err != nil {
		return nil, err
	}
	s.rpc = rpc.NewServer(d.Log, guardUnary(s.guard, limits), onceUnary(d.Answers, all), guardStream(s.guard, limits))
	register := dialectServers{
		deploy: deploy, appModel: &appModelServer{scheduler: d.Scheduler, view: s.view, log: d.Log}, admin: &adminServer{scheduler: d.Admin, log: d.Log}, accounts: &accountServer{accounts: d.Accounts, log: d.Log},
		orgs: &orgServer{orgs: d.Orgs, log: d.Log}, keys: &keyServer{keys: d.APIKeys, log: d.Log},
		eventCredentials: &eventCredentialServer{credentials: d.EventCredentials, log: d.Log},
		apps:             &appServer{identity: d.OAuth, log: d.Log},
		events:           &eventServer{streams: s.streams, log: d.Log}, webhooks: &webhookServer{webhooks: d.Webhooks, log: d.Log},
		domains: &domainServer{domains: d.Domains, log: d.Log},
		dns:     &dnsServer{dns: d.DNS, log: d.Log},
		ingress: &ingressServer{deploy: deploy, requests: d.Requests},
	}
	register.grpc(s.rpc)
	health := &healthReport{services: d.Services, edges: d.Edges, version: d.Version}
	pages, err := oauth.New(oauth.Deps{
		Identity: d.OAuth, People: people{authenticator: d.Authenticator, accounts: register.accounts, orgs: register.orgs},
		Issuer: s.publicURL, Now: d.Now, Log: d.Log,
	})
	if err != nil {
		return nil, err
	}
	if s.door, err = newDoor(deploy, register.ingress, register.rest, s.guard, limits, s.rpc, health, pages, document, d); err != nil {
		return nil, err
	}
	return s, nil
}

func sharedLimits(l RateLimits, d Deps) (*limits, error) {
	limiter, err := ratelimit.New(d.Rates, d.Now, d.Log, d.Metrics)
	if err != nil {
		return nil, err
	}
	all, err := routes(dialects()...)
	if err != nil {
		return nil, err
	}
	return newLimits(l, limiter, all)
}

// Ready is nil once the gateway listens and its view holds what was in the log.
func (s *Service) Ready() error {
	if s.Address() == "" {
		return errors.New("the gateway does not listen yet")
	}
	return s.view.Ready()
}

// Address is the host:port it listens on; empty before that.
func (s *Service) Address() string {
	address, _ := s.address.Load().(string)
	return address
}

// publicURL is where the public reaches the API.
func (s *Service) publicURL() string {
	if s.config.PublicURL != "" {
		return s.config.PublicURL
	}
	address := s.Address()
	if address == "" {
		address = s.config.Listen
	}
	return "http://" + reachable(address)
}

// reachable is the address with a host that this machine can call.
func reachable(hostPort string) string {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return hostPort
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// Handler answers all that the gateway's listener does.
func (s *Service) Handler() http.Handler { return s.door }

// Run serves until ctx ends, then ends event streams, lets other requests finish
// for at most five seconds and returns nil. It fails when the address is taken or
// the log cannot be followed.
func (s *Service) Run(ctx context.Context) error {
	listener := s.deps.Listener
	if listener == nil {
		var err error
		if listener, err = new(net.ListenConfig).Listen(ctx, "tcp", s.config.Listen); err != nil {
			return fmt.Errorf("listen for the public API: %w", err)
		}
	}
	// Views outlive the requests that read them.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	failed := make(chan error, 4)
	var parts sync.WaitGroup
	parts.Go(func() { failed <- s.view.Run(background) })
	if tokens, ok := s.deps.Authenticator.(*authn.Tokens); ok {
		parts.Go(func() { failed <- tokens.Follow(background, s.deps.Store) })
	}
	if s.deps.Probes != nil {
		parts.Go(func() { failed <- s.deps.Probes.Follow(background, s.probed) })
	}
	server := s.server()
	parts.Go(func() { failed <- server.Serve(netutil.LimitListener(listener, maxConnections)) })
	s.address.Store(listener.Addr().String())
	s.rpc.SetServing(true)
	s.deps.Log.InfoContext(ctx, "answering the public API", "address", s.Address())

	var failure error
	select {
	case <-ctx.Done():
	case failure = <-failed:
		if failure == nil {
			failure = errors.New("a part of the gateway ended by itself")
		}
	}
	s.rpc.SetServing(false)
	s.streams.Close()
	patience, cancel := context.WithTimeout(background, drain)
	if err := server.Shutdown(patience); err != nil {
		s.deps.Log.WarnContext(ctx, "requests under way were cut off", "error", err)
		// Shutdown has closed the listener; what remains are connections.
		_ = server.Close()
	}
	cancel()
	s.rpc.Stop()
	stop()
	parts.Wait()
	return failure
}

func (s *Service) server() *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           s.door,
		Protocols:         protocols,
		ReadHeaderTimeout: requestTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 256},
	}
}

func (s *Service) probed(r *healthv1.ProbeResult) {
	if r.GetCheckedAt() == nil {
		return
	}
	if err := s.view.Probed(r.GetDeploymentId(), r.GetCheckedAt().AsTime()); err != nil {
		s.deps.Log.Error("a probe could not be shown", "deployment", r.GetDeploymentId(), "error", err)
	}
}
