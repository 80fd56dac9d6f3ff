package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	deployv1 "github.com/slipway-paas/slipway/gen/slipway/deploy/v1"
	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/gateway"
)

// sse is one open event stream.
type sse struct {
	res     *http.Response
	scanner *bufio.Scanner
}

func (s *stage) follow(t *testing.T, id string, headers ...string) *sse {
	t.Helper()
	return s.open(t, "/api/deploy/apps/"+id+"/events", headers...)
}

func (s *stage) open(t *testing.T, path string, headers ...string) *sse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+ownerToken)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return &sse{res: res, scanner: bufio.NewScanner(res.Body)}
}

// next reads one event, skipping comments; nil at the end of the stream.
func (s *sse) next(t *testing.T) map[string]string {
	t.Helper()
	event := map[string]string{}
	for s.scanner.Scan() {
		line := s.scanner.Text()
		name, value, _ := strings.Cut(line, ": ")
		switch {
		case line == "" && event["data"] != "":
			return event
		case name != "" && line != "":
			event[name] = value
		}
	}
	if err := s.scanner.Err(); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("the stream broke: %v", err)
	}
	return nil
}

func TestEventsAreFollowedAndResumed(t *testing.T) {
	t.Parallel()
	s := begin(t)
	id := s.requested(t)
	stream := s.follow(t, id)
	if got := stream.res.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/event-stream") {
		t.Fatalf("got %d %s", stream.res.StatusCode, got)
	}
	first := stream.next(t)
	var event map[string]any
	if err := json.Unmarshal([]byte(first["data"]), &event); err != nil {
		t.Fatal(err)
	}
	if first["id"] != "1" || first["event"] != "DeploymentRequested" || event["specversion"] != "1.0" || event["sequence"] != 1.0 ||
		event["type"] != "DeploymentRequested" || event["subject"] != "deployment/"+id || event["actor"] != "app-1" ||
		event["source"] != "test" || event["time"] != "2026-05-21T10:00:00Z" || event["id"] == "" {
		t.Errorf("got %v", first)
	}
	data := event["data"].(map[string]any)
	release := data["release"].(map[string]any)
	if data["subdomain"] != "my-app" || release["health_check"] != nil || data["custom_domain"] != "" {
		t.Errorf("data is %v", data)
	}
	env := release["env"].(map[string]any)
	if fmt.Sprint(env) != "map[names:[KEY]]" || strings.Contains(first["data"], "planted") || strings.Contains(first["data"], "cGxhbnRlZC") {
		t.Errorf("sealed values are shown: %s", first["data"])
	}

	s.happen(t, id, &deploymentv1.DeploymentScheduled{ReleaseId: "r1"})
	other := s.requested(t)
	last := s.happen(t, id, &deploymentv1.RouteBound{ReleaseId: "r1", Revision: 1 << 40})
	if got := stream.next(t); got["event"] != "DeploymentScheduled" || got["id"] != "2" {
		t.Errorf("got %v, want what happened next", got)
	}
	bound := stream.next(t)
	if bound["event"] != "RouteBound" || bound["id"] != fmt.Sprint(last) || !strings.Contains(bound["data"], `"revision":1099511627776`) {
		t.Errorf("got %v, want the route bound, its number unquoted, and nothing of %s", bound, other)
	}
	_ = stream.res.Body.Close()

	for _, resumed := range []*sse{s.follow(t, id, "Last-Event-ID: 2"), s.follow(t, id+"/events?last_event_id=2#")} {
		if got := resumed.next(t); got["event"] != "RouteBound" {
			t.Errorf("resumed with %v, want what came after 2", got)
		}
	}
}

func TestAnIdleStreamShowsThatItLives(t *testing.T) {
	t.Parallel()
	s := begin(t)
	id := s.requested(t)
	stream := s.follow(t, id, "Last-Event-ID: 1")
	beats := 0
	for beats < 3 && stream.scanner.Scan() {
		if strings.HasPrefix(stream.scanner.Text(), ":") {
			beats++
		}
	}
	if beats < 3 {
		t.Errorf("%d heartbeats, then the end", beats)
	}
}

func TestAnOperatorHasSoManyStreamsAndNoMore(t *testing.T) {
	t.Parallel()
	s := begin(t, func(c *gateway.Config, _ *gateway.Deps) { c.MaxStreamsPerOperator = 2 })
	id := s.requested(t)
	first, _ := s.follow(t, id), s.follow(t, id)
	if got := s.follow(t, id).res; got.StatusCode != http.StatusTooManyRequests || got.Header.Get("Retry-After") == "" {
		t.Errorf("the third stream got %d", got.StatusCode)
	}
	_ = first.res.Body.Close()
	eventually(t, "a closed stream makes room", func() bool { return s.follow(t, id).res.StatusCode == http.StatusOK })
}

func TestStoppingEndsStreamsCleanly(t *testing.T) {
	t.Parallel()
	s := begin(t)
	id := s.requested(t)
	stream := s.follow(t, id)
	stream.next(t)
	conn := s.dial(t)
	follow, err := deployv1.NewDeployServiceClient(conn).FollowDeploymentEvents(as(t, ownerToken), &deployv1.FollowDeploymentEventsRequest{Id: id})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := follow.Recv(); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	s.stop()
	if got := stream.next(t); got != nil {
		t.Errorf("got %v, want the end", got)
	}
	if err := stream.scanner.Err(); err != nil {
		t.Errorf("the stream ended with %v, want a clean end", err)
	}
	if _, err := follow.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the gRPC stream ended with %v, want UNAVAILABLE", err)
	}
	err = <-s.stopped
	s.stopped <- err
	if took := time.Since(begun); took > 4*time.Second {
		t.Errorf("stopping took %s", took)
	}
}

func (s *stage) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(s.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func as(t *testing.T, token string) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

func TestTheSameAnswersOverGRPCOnTheSamePort(t *testing.T) {
	t.Parallel()
	s := begin(t)
	id := s.requested(t)
	client := deployv1.NewDeployServiceClient(s.dial(t))

	got, err := client.GetDeployment(as(t, ownerToken), &deployv1.GetDeploymentRequest{Id: id})
	if err != nil || got.GetDeployment().GetSubdomain() != "my-app" {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := client.GetDeploymentStatus(as(t, ownerToken), &deployv1.GetDeploymentStatusRequest{Id: id}); err != nil {
		t.Error(err)
	}
	refusals := map[string]struct {
		token, id string
		code      codes.Code
	}{
		"wrong token": {"nope", id, codes.Unauthenticated}, "no scope": {readerToken, id, codes.PermissionDenied},
		"another's": {strangerToken, id, codes.PermissionDenied}, "no UUID": {ownerToken, "x", codes.NotFound},
	}
	for name, c := range refusals {
		_, err := client.GetDeployment(as(t, c.token), &deployv1.GetDeploymentRequest{Id: c.id})
		if status.Code(err) != c.code || problem.From(err).Code == "" {
			t.Errorf("%s: got %v, want %s", name, err, c.code)
		}
		stream, err := client.FollowDeploymentEvents(as(t, c.token), &deployv1.FollowDeploymentEventsRequest{Id: c.id})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != c.code {
			t.Errorf("%s: following got %v, want %s", name, err, c.code)
		}
	}
	if _, err := client.ListTiers(t.Context(), &deployv1.ListTiersRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a token: %v", err)
	}
	s.scheduler.set(func(f *fakeScheduler) {
		f.fails = problem.Validation([]problem.Field{{Field: "port", Message: "is wrong"}})
	})
	_, err = client.CreateDeployment(as(t, ownerToken), &deployv1.CreateDeploymentRequest{})
	if p := problem.From(err); p.Status != 422 || len(p.Fields) != 1 {
		t.Errorf("got %v, want the field at fault", err)
	}
}

func TestEventsAreFollowedOverGRPC(t *testing.T) {
	t.Parallel()
	s := begin(t)
	id := s.requested(t)
	stream, err := deployv1.NewDeployServiceClient(s.dial(t)).FollowDeploymentEvents(as(t, ownerToken), &deployv1.FollowDeploymentEventsRequest{Id: id, AfterSequence: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil {
		t.Fatal(err)
	}
	s.happen(t, id, &deploymentv1.RouteBound{ReleaseId: "r1", Hosts: []string{"a"}, Revision: 7})
	got, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if got.GetSequence() != 2 || got.GetType() != "RouteBound" || got.GetData().AsMap()["revision"] != 7.0 {
		t.Errorf("got %v", got)
	}
}

func TestHealthAndReflectionNeedNoToken(t *testing.T) {
	t.Parallel()
	s := begin(t)
	conn := s.dial(t)
	for _, service := range []string{"", "slipway.deploy.v1.DeployService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"} {
		health, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil || health.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%q: got %v, %v", service, health, err)
		}
	}
	if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: "nobody.v1.Service"}); status.Code(err) != codes.NotFound {
		t.Errorf("a service that is not here: %v", err)
	}
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	res, err := stream.Recv()
	if err != nil || !strings.Contains(res.String(), "slipway.deploy.v1.DeployService") {
		t.Errorf("got %v, %v", res, err)
	}
}

func TestAGetAfterAWriteSeesIt(t *testing.T) {
	t.Parallel()
	s := begin(t)
	id := s.requested(t)
	path := "/api/deploy/apps/" + id
	eventually(t, "the view sees it", func() bool { return s.call(t, "GET", path+"/status", "").status == 200 })

	// The scheduler answers with a sequence that the log has not shown yet.
	s.scheduler.set(func(f *fakeScheduler) { f.deployments[id].Sequence = 2 })
	s.call(t, "POST", path+"/restart", "")
	answered := make(chan reply, 1)
	go func() { answered <- s.call(t, "GET", path+"/status", "") }()
	s.happen(t, id, &deploymentv1.RestartRequested{Release: &deploymentv1.Release{Id: "r2"}})
	if got := (<-answered).json(t)["status"]; got != "deploying" {
		t.Errorf("a poll after the restart says %v", got)
	}

	// When the log stays behind, the owner is asked instead.
	s.scheduler.set(func(f *fakeScheduler) { f.deployments[id].Sequence, f.deployments[id].Status = 99, "stopped" })
	s.call(t, "POST", path+"/stop", "")
	if got := s.call(t, "GET", path+"/status", "").json(t)["status"]; got != "stopped" {
		t.Errorf("a poll behind the log says %v, want the scheduler's word", got)
	}
}
