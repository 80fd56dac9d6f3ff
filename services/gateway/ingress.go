package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	appsv1 "github.com/slipway-paas/slipway/gen/slipway/apps/v1"
	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/gateway/authn"
	"github.com/slipway-paas/slipway/services/gateway/requests"
)

// Bounds of what may be looked back at.
const (
	defaultWindow = 5 * time.Minute
	minWindow     = 10 * time.Second
	maxWindow     = time.Hour
	defaultLines  = 100
	maxLines      = 10_000
)

// ingressServer is about requests for apps: how they are treated, and what became of
// them. Every method expects a principal in its context.
type ingressServer struct {
	appsv1.UnimplementedIngressServiceServer
	deploy   *deployServer
	requests RequestReader
}

func (s *ingressServer) GetIngress(ctx context.Context, in *appsv1.GetIngressRequest) (*appsv1.GetIngressResponse, error) {
	app, err := s.app(ctx, in.GetName())
	if err != nil {
		return nil, err
	}
	ctx, cancel := outgoing(ctx)
	defer cancel()
	out, err := s.deploy.scheduler.GetIngress(ctx, &schedulerv1.GetIngressRequest{Principal: authn.Principal(ctx), Id: app.ID})
	if err != nil {
		return nil, s.deploy.failed(ctx, "get an app's ingress", err)
	}
	return &appsv1.GetIngressResponse{Ingress: ingress(out.GetPolicy())}, nil
}

func (s *ingressServer) ConfigureIngress(ctx context.Context, in *appsv1.ConfigureIngressRequest) (*appsv1.ConfigureIngressResponse, error) {
	app, err := s.app(ctx, in.GetName())
	if err != nil {
		return nil, err
	}
	ctx, cancel := outgoing(ctx)
	defer cancel()
	out, err := s.deploy.scheduler.ConfigureIngress(ctx, &schedulerv1.ConfigureIngressRequest{
		Principal: authn.Principal(ctx), Id: app.ID, Maintenance: in.GetMaintenance(), MaxRequestBytes: in.GetMaxRequestBytes(),
		RequestTimeoutSeconds: in.GetRequestTimeoutSeconds(), Sticky: in.GetSticky(), DrainSeconds: in.GetDrainSeconds(), Compression: in.GetCompression(),
	})
	if err != nil {
		return nil, s.deploy.failed(ctx, "configure an app's ingress", err)
	}
	s.deploy.view.Wrote(app.ID, out.GetSequence())
	return &appsv1.ConfigureIngressResponse{Ingress: ingress(out.GetPolicy())}, nil
}

func (s *ingressServer) GetRequestMetrics(ctx context.Context, in *appsv1.GetRequestMetricsRequest) (*appsv1.GetRequestMetricsResponse, error) {
	window := defaultWindow
	if in.GetWindow() != "" {
		var err error
		if window, err = time.ParseDuration(in.GetWindow()); err != nil || window < minWindow || window > maxWindow {
			return nil, problem.Validation([]problem.Field{{Field: "window", Message: "must be a duration from 10s to 1h, like 5m"}})
		}
	}
	app, err := s.app(ctx, in.GetName())
	if err != nil {
		return nil, err
	}
	if s.requests == nil {
		return nil, errNoRequests()
	}
	ctx, cancel := outgoing(ctx)
	defer cancel()
	sums, err := s.requests.Sum(ctx, app.Org, app.ID, window)
	if err != nil {
		return nil, s.unread(ctx, err)
	}
	n := sums.Requests()
	res := &appsv1.GetRequestMetricsResponse{
		Window: window.String(), From: millis(timestamppb.New(sums.From)), Until: millis(timestamppb.New(sums.Until)),
		Requests: counted(n), Rate: float64(n) / window.Seconds(),
		Errors: &appsv1.RequestErrors{Client: counted(sums.Class[3]), Server: counted(sums.Class[4])},
		P50Ms:  sums.P50, P90Ms: sums.P90, P99Ms: sums.P99, BytesIn: float64(sums.BytesIn), BytesOut: float64(sums.BytesOut),
	}
	if n > 0 {
		res.ErrorRate = float64(sums.Class[4]) / float64(n)
	}
	return res, nil
}

// FollowAccessLog implements appsv1.IngressServiceServer.
func (s *ingressServer) FollowAccessLog(in *appsv1.FollowAccessLogRequest, stream appsv1.IngressService_FollowAccessLogServer) error {
	ctx := stream.Context()
	if in.GetLines() > maxLines {
		return problem.Validation([]problem.Field{{Field: "lines", Message: fmt.Sprintf("must be at most %d", maxLines)}})
	}
	app, err := s.app(ctx, in.GetName())
	if err != nil {
		return err
	}
	lines := int(in.GetLines())
	if lines == 0 {
		lines = defaultLines
	}
	err = s.follow(ctx, app, lines, in.GetFollow(), func(entries []requests.Entry) error {
		for _, e := range entries {
			if err := stream.Send(e.Message()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		return problem.From(err)
	}
	return nil
}

// follow hands over the last entries, maybe none, and then, when asked to, each new one
// until ctx or the gateway ends; none at all is for showing that the stream lives.
// Errors are handle's and *problem.Error: 429, 503.
func (s *ingressServer) follow(ctx context.Context, app subjects.Aggregate, lines int, on bool, handle func([]requests.Entry) error) error {
	if s.requests == nil {
		return errNoRequests()
	}
	streams := s.deploy.streams
	closed, err := streams.Open(authn.Principal(ctx).GetOperatorId())
	if err != nil {
		return err
	}
	defer closed()
	within, cancel := context.WithTimeout(ctx, callTimeout)
	entries, last, err := s.requests.Last(within, app.Org, app.ID, lines)
	cancel()
	if err != nil {
		return s.unread(ctx, err)
	}
	if err := handle(entries); err != nil || !on {
		return err
	}
	following, stop := context.WithCancel(ctx)
	batches, ended := make(chan []requests.Entry), make(chan error, 1)
	go func() {
		ended <- s.requests.Follow(following, app.Org, app.ID, last, func(batch []requests.Entry) error {
			select {
			case batches <- batch:
			case <-following.Done():
			}
			return nil
		})
	}()
	defer func() { stop(); <-ended }()
	beat := time.NewTicker(streams.Heartbeat())
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-streams.Closing():
			return problem.Unavailable("Slipway is restarting; follow again.", time.Second)
		case err := <-ended:
			ended <- nil
			if err != nil {
				return s.unread(ctx, err)
			}
			return nil
		case <-beat.C:
			if err := handle(nil); err != nil {
				return err
			}
		case batch := <-batches:
			if err := handle(batch); err != nil {
				return err
			}
			beat.Reset(streams.Heartbeat())
		}
	}
}

// app is the deployment of the caller's organization with that id, or that has the
// subdomain: the one that is not destroyed, or else the newest. What is another's is
// not there.
func (s *ingressServer) app(ctx context.Context, name string) (subjects.Aggregate, error) {
	none := problem.NotFound("App not found: there is none with this name or id; GET /api/deploy/apps lists yours.")
	if len(name) == 36 && uuid.Validate(name) == nil {
		app, err := s.deploy.owned(ctx, name)
		if err != nil && problem.From(err).Status == http.StatusForbidden {
			err = none
		}
		return app, err
	}
	ctx, cancel := outgoing(ctx)
	defer cancel()
	list, err := s.deploy.scheduler.ListDeployments(ctx, &schedulerv1.ListDeploymentsRequest{Principal: authn.Principal(ctx)})
	if err != nil {
		return subjects.Aggregate{}, s.deploy.failed(ctx, "find an app", err)
	}
	var found *schedulerv1.Deployment
	for _, d := range list.GetDeployments() {
		if d.GetSubdomain() == name && (found == nil || d.GetStatus() != "destroyed") {
			found = d
		}
	}
	if found == nil {
		return subjects.Aggregate{}, none
	}
	return subjects.Of(found.GetOrgId(), subjects.Deployment, found.GetId()), nil
}

func (s *ingressServer) unread(ctx context.Context, err error) error {
	if own := (*problem.Error)(nil); errors.As(err, &own) {
		return own
	}
	if ctx.Err() == nil {
		s.deploy.log.WarnContext(ctx, "what edges said of requests cannot be read", "error", err)
	}
	return problem.Unavailable("What was said of requests cannot be read now; try again in a moment.", time.Second)
}

func errNoRequests() error {
	return problem.Unavailable("This gateway does not know of requests.", time.Minute)
}

// counted is what the dialect can say of a number: it has no 64-bit integers.
func counted(n uint64) uint32 { return uint32(min(n, 1<<32-1)) }

func ingress(p *routingv1.RoutePolicy) *appsv1.Ingress {
	return &appsv1.Ingress{
		Maintenance: p.GetMaintenance(), MaxRequestBytes: counted(p.GetMaxRequestBytes()),
		RequestTimeoutSeconds: uint32(p.GetRequestTimeout().GetSeconds()), Sticky: p.GetSticky(),
		DrainSeconds: uint32(p.GetDrain().GetSeconds()), Compression: !p.GetNoCompression(),
	}
}
