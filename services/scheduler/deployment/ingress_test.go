package deployment_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
)

func decided(t *testing.T, s deployment.State, c deployment.ConfigureIngress) proto.Message {
	t.Helper()
	event, err := deployment.Decide(s, c, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return event
}

func TestIngressChangesFieldByField(t *testing.T) {
	t.Parallel()
	s := live()
	first := decided(t, s.state, deployment.ConfigureIngress{Maintenance: new(true), MaxRequestBytes: new(int32(10 << 20)), By: "app-1"})
	want := &deploymentv1.IngressConfigured{Policy: &routingv1.RoutePolicy{Maintenance: true, MaxRequestBytes: 10 << 20}, InitiatedBy: "app-1"}
	if !proto.Equal(first, want) {
		t.Fatalf("decided %v, want %v", first, want)
	}
	running := s.state
	s = s.and(first)
	if s.state.Status != running.Status || s.state.Live != running.Live && s.state.Live.Id != running.Live.Id || s.state.Next != nil {
		t.Fatalf("more than the ingress changed: %+v", s.state)
	}
	second := decided(t, s.state, deployment.ConfigureIngress{
		Maintenance: new(false), RequestTimeoutSeconds: new(int32(60)), Sticky: new(true), DrainSeconds: new(int32(5)), Compression: new(false)})
	want = &deploymentv1.IngressConfigured{Policy: &routingv1.RoutePolicy{
		MaxRequestBytes: 10 << 20, RequestTimeout: durationpb.New(time.Minute), Sticky: true, Drain: durationpb.New(5 * time.Second), NoCompression: true}}
	if !proto.Equal(second, want) {
		t.Fatalf("decided %v, want %v", second, want)
	}
	s = s.and(second)
	if again := decided(t, s.state, deployment.ConfigureIngress{Sticky: new(true)}); again != nil {
		t.Fatalf("decided %v where nothing changes", again)
	}
	back := decided(t, s.state, deployment.ConfigureIngress{
		MaxRequestBytes: new(int32(0)), RequestTimeoutSeconds: new(int32(0)), Sticky: new(false), DrainSeconds: new(int32(0)), Compression: new(true)})
	if !proto.Equal(back, &deploymentv1.IngressConfigured{Policy: &routingv1.RoutePolicy{}}) {
		t.Fatalf("zeros leave %v", back)
	}
}

func TestIngressOutOfBoundsIsRefusedFieldByField(t *testing.T) {
	t.Parallel()
	for field, c := range map[string]deployment.ConfigureIngress{
		"max_request_bytes":       {MaxRequestBytes: new(int32(1023))},
		"max_request_bytes ":      {MaxRequestBytes: new(int32(-1))},
		"request_timeout_seconds": {RequestTimeoutSeconds: new(int32(301))},
		"drain_seconds":           {DrainSeconds: new(int32(3601))},
		"drain_seconds ":          {DrainSeconds: new(int32(-1))},
	} {
		_, err := deployment.Decide(live().state, c, time.Time{})
		if p := problem.From(err); p.Status != 422 || len(p.Fields) != 1 || p.Fields[0].Field != strings.TrimSpace(field) {
			t.Errorf("%s: %v %v", field, err, p.Fields)
		}
	}
	for _, c := range []deployment.ConfigureIngress{
		{MaxRequestBytes: new(int32(1024))}, {MaxRequestBytes: new(int32(1<<31 - 1))}, {RequestTimeoutSeconds: new(int32(300))}, {DrainSeconds: new(int32(3600))},
	} {
		if _, err := deployment.Decide(live().state, c, time.Time{}); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestIngressIsForDeploymentsThatAreThere(t *testing.T) {
	t.Parallel()
	on := deployment.ConfigureIngress{Maintenance: new(true)}
	if _, err := deployment.Decide(given().state, on, time.Time{}); problem.From(err).Status != 404 {
		t.Errorf("of none: %v", err)
	}
	for _, end := range []*story{
		live().and(&deploymentv1.DestroyRequested{}), live().and(&deploymentv1.DestroyRequested{}, &deploymentv1.DeploymentDestroyed{}),
	} {
		if _, err := deployment.Decide(end.state, on, time.Time{}); problem.From(err).Code != problem.CodeInvalidState {
			t.Errorf("of a destroyed one: %v", err)
		}
	}
	stopped := live().and(&deploymentv1.StopRequested{}, &deploymentv1.DeploymentStopped{})
	if decided(t, stopped.state, on) == nil {
		t.Error("a stopped one cannot be put into maintenance")
	}
}
