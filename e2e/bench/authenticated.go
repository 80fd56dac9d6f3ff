package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	adminv1 "github.com/slipway-paas/slipway/gen/slipway/admin/v1"
	billingv1 "github.com/slipway-paas/slipway/gen/slipway/billing/v1"
	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	webhooksv1 "github.com/slipway-paas/slipway/gen/slipway/webhooks/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/eventstore/memory"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/rpc"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/gateway"
)

const (
	benchToken = "slp_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
	// pairs are many and short, so that a machine that does other work as well meets both
	// alike, and odd, so that one of them is the middle.
	pairs   = 15
	pairFor = time.Second
)

// reader is who polls, in both ways.
func reader() *identityv1.Principal {
	return &identityv1.Principal{
		OperatorId: "op", OrgId: "default", AppId: "app", Role: "owner", Scopes: []string{"deploy:manage"}, Kind: identityv1.CredentialKind_CREDENTIAL_KIND_ACCESS_TOKEN,
	}
}

// knower answers for the one token, as identity does.
type knower struct {
	identityv1.UnimplementedIdentityServiceServer
}

func (knower) Authenticate(_ context.Context, in *identityv1.AuthenticateRequest) (*identityv1.AuthenticateResponse, error) {
	if sha256.Sum256([]byte(benchToken)) != [sha256.Size]byte(in.GetTokenSha256()) {
		return nil, problem.Unauthorized("The credential is not valid.")
	}
	return &identityv1.AuthenticateResponse{Principal: reader()}, nil
}

// trusting takes everybody for the reader, and looks at no token.
type trusting struct{ principal *identityv1.Principal }

func (t trusting) Authenticate(context.Context, string, string) (*identityv1.Principal, error) {
	return t.principal, nil
}

// unasked answers for all that a status poll does not need.
type unasked struct{}

var errUnasked = errors.New("a status poll asked another service")

func (unasked) Invoke(context.Context, string, any, any, ...grpc.CallOption) error { return errUnasked }
func (unasked) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errUnasked
}

// door is a gateway's whole chain of handlers, listening.
type door struct {
	url  string
	stop func()
}

// open serves a gateway that has one deployment in its log. When trust is set no token is
// sent or looked at: what it presents is put in behind the line.
func open(ctx context.Context, id string, limits gateway.RateLimits, trust bool) (door, error) {
	log, none := slog.New(slog.DiscardHandler), unasked{}
	store := memory.New()
	_, err := store.Record(ctx, eventstore.Event{
		Aggregate: subjects.Of("default", subjects.Deployment, id), ID: uuid.NewString(), Time: time.Now(), Source: "bench", Actor: "app",
		Payload: &deploymentv1.DeploymentRequested{
			DeploymentId: id, OrgId: "default", OperatorId: "op", AppId: "app", Subdomain: "bench", Release: &deploymentv1.Release{Id: "r1", Number: 1, Image: "ghcr.io/a/b:1"},
		},
	})
	if err != nil {
		return door{}, fmt.Errorf("make a log: %w", err)
	}
	inside, err := rpc.NewMemory(log)
	if err != nil {
		return door{}, fmt.Errorf("make an identity: %w", err)
	}
	identityv1.RegisterIdentityServiceServer(inside, knower{})
	deps := gateway.Deps{
		Identity: identityv1.NewIdentityServiceClient(inside.Conn()), Store: store, Services: func() map[string]bool { return nil }, Version: "bench", Log: log,
		Scheduler: schedulerv1.NewSchedulerServiceClient(none), Admin: adminv1.NewAdminServiceClient(none), Tiers: billingv1.NewTierServiceClient(none),
		Accounts: identityv1.NewAccountServiceClient(none), Orgs: identityv1.NewOrgServiceClient(none), APIKeys: identityv1.NewApiKeyServiceClient(none),
		OAuth: identityv1.NewOAuthServiceClient(none), Webhooks: webhooksv1.NewWebhookServiceClient(none),
	}
	if trust {
		deps.Authenticator = trusting{reader()}
	}
	s, err := gateway.New(gateway.Config{Listen: "127.0.0.1:0", RateLimits: limits}, deps)
	if err != nil {
		return door{}, errors.Join(err, inside.Close())
	}
	handler := s.Handler()
	if trust {
		presented := []string{"Bearer x"}
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header["Authorization"] = presented
			s.Handler().ServeHTTP(w, r)
		})
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return door{}, errors.Join(fmt.Errorf("listen: %w", err), inside.Close())
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Run(running) // keeps the view; ends with stop
	}()
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(listener) }() // ends with Close
	stop := func() {
		_ = server.Close()
		cancel()
		<-ended
		_ = inside.Close()
	}
	for s.Ready() != nil {
		select {
		case <-ctx.Done():
			stop()
			return door{}, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return door{url: "http://" + listener.Addr().String() + "/api/deploy/apps/" + id + "/status", stop: stop}, nil
}

// authenticatedSection measures what checking a token costs a status poll: the same
// handlers of the gateway answering the same body, with a token that is checked and
// without one.
func authenticatedSection(ctx context.Context, _ *bench) error {
	id := uuid.NewString()
	ample := gateway.RateLimits{Reads: 100_000_000, Writes: 100_000_000, SignIns: 100_000_000}
	for _, c := range []struct {
		name   string
		limits gateway.RateLimits
	}{{"with rate limits", ample}, {"without rate limits", gateway.RateLimits{}}} {
		checked, err := open(ctx, id, c.limits, false)
		if err != nil {
			return err
		}
		defer checked.stop()
		trusted, err := open(ctx, id, c.limits, true)
		if err != nil {
			return err
		}
		defer trusted.stop()
		var with, without sample
		var ratios []float64
		for i := range pairs {
			// Each is first as often.
			for turn := range 2 {
				if (turn+i)%2 == 0 {
					err = with.take(ctx, checked.url, "Authorization: Bearer "+benchToken)
				} else {
					err = without.take(ctx, trusted.url, "Accept: */*")
				}
				if err != nil {
					return err
				}
			}
			ratios = append(ratios, ratio(with.rates[i], without.rates[i]))
		}
		compare("GET status with a token, "+c.name, with.String(), "no token, same handlers "+without.String(), middle(ratios), "at least 0.85x")
	}
	return nil
}

// sample is how fast one way is: requests a second, and the processor's time of this
// process for one, which other work on the machine changes less.
type sample struct{ rates, micros []float64 }

func (s *sample) take(ctx context.Context, url, header string) error {
	before, err := processorTime()
	if err != nil {
		return err
	}
	rate, err := wrkFor(ctx, pairFor, url, header)
	if err != nil {
		return err
	}
	after, err := processorTime()
	if err != nil {
		return err
	}
	s.rates = append(s.rates, rate)
	s.micros = append(s.micros, float64((after-before).Microseconds())/(rate*pairFor.Seconds()))
	return nil
}

func (s *sample) String() string {
	return fmt.Sprintf("%.0f/s (%.1f µs)", middle(s.rates), middle(s.micros))
}

// processorTime is what this process has used.
func processorTime() (time.Duration, error) {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return 0, fmt.Errorf("read the processor's time: %w", err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()), nil
}
