package scenarios

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	deployv1 "github.com/slipway-paas/slipway/gen/slipway/deploy/v1"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/e2e/stack"
)

func TestEventsComeInOrderAndResumeWhereTheyStopped(t *testing.T) {
	t.Parallel()
	s := platform(t)
	a := create(t, s, map[string]any{"image": push(t, s, "latest", "one"), "port": 8080})
	var all []client.Event
	follow(t, a, "", func(e client.Event) bool {
		all = append(all, e)
		return e.Type == "DeploymentRunning"
	})
	if got := typesOf(all); !inOrder(got, "DeploymentRequested", "DeploymentScheduled", "ImagePulled", "ContainerStarted",
		"InstanceHealthy", "RouteBound", "DeploymentRunning") {
		t.Errorf("a deploy's events are %v", got)
	}
	last := 0
	for _, e := range all {
		var sequence int
		if _, err := fmt.Sscan(e.ID, &sequence); err != nil || sequence <= last {
			t.Fatalf("the event's id %q does not follow %d: %v", e.ID, last, err)
		}
		last = sequence
		if e.JSON() == nil {
			t.Errorf("the event %s has the data %q", e.Type, e.Data)
		}
	}

	// Again from the third on: the same events, none twice, none missing.
	var rest []client.Event
	follow(t, a, all[2].ID, func(e client.Event) bool {
		rest = append(rest, e)
		return len(rest) == len(all)-3
	})
	if !slices.Equal(rest, all[3:]) {
		t.Errorf("resumed after %s: %v, want %v", all[2].ID, typesOf(rest), typesOf(all[3:]))
	}

	// A follower who waits hears of what happens next.
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() {
		done <- a.c.Follow(ctx, a.path("/events"), all[len(all)-1].ID, func(e client.Event) bool { return e.Type == "DeploymentStopped" })
	}()
	a.do("stop")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func follow(t *testing.T, a *app, from string, handle func(client.Event) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := a.c.Follow(ctx, a.path("/events"), from, handle); err != nil {
		t.Fatal(err)
	}
}

func typesOf(events []client.Event) []string {
	types := make([]string, 0, len(events))
	for _, e := range events {
		types = append(types, e.Type)
	}
	return types
}

// dial opens a gRPC connection to the platform's one public port.
func dial(t *testing.T, s *stack.Stack) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(strings.TrimPrefix(s.API, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func withToken(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

func TestTheSameOverGRPC(t *testing.T) {
	t.Parallel()
	s := platform(t)
	conn := dial(t, s)
	ctx, cancel := context.WithTimeout(withToken(t.Context(), s.Token), patience)
	defer cancel()
	api := deployv1.NewDeployServiceClient(conn)

	tiers, err := api.ListTiers(ctx, &deployv1.ListTiersRequest{})
	if err != nil || len(tiers.GetTiers()) != 4 {
		t.Fatalf("tiers: %v %v", tiers, err)
	}
	image := push(t, s, "latest", "one")
	created, err := api.CreateDeployment(ctx, &deployv1.CreateDeploymentRequest{Subdomain: name(t), Image: image, Tier: "buddo-starter"})
	if err != nil {
		t.Fatal(err)
	}
	id := created.GetDeployment().GetId()
	defer func() {
		if _, err := api.DestroyDeployment(ctx, &deployv1.DestroyDeploymentRequest{Id: id}); err != nil {
			t.Errorf("destroy: %v", err)
		}
	}()
	events, err := api.FollowDeploymentEvents(ctx, &deployv1.FollowDeploymentEventsRequest{Id: id})
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for len(types) == 0 || types[len(types)-1] != "DeploymentRunning" {
		e, err := events.Recv()
		if errors.Is(err, io.EOF) || err != nil {
			t.Fatalf("after %v: %v", types, err)
		}
		types = append(types, e.GetType())
	}
	if types[0] != "DeploymentRequested" {
		t.Errorf("the events are %v", types)
	}
	got, err := api.GetDeploymentStatus(ctx, &deployv1.GetDeploymentStatusRequest{Id: id})
	if err != nil || got.GetStatus() != "running" {
		t.Errorf("status: %v %v", got, err)
	}
	over := expect(t, s.Client(), 200, "GET", "/api/deploy/apps/"+id+"/status", nil).JSON()
	if over["status"] != "running" || over["id"] != id {
		t.Errorf("over HTTP the same deployment is %v", over)
	}

	for what, want := range map[string]codes.Code{"": codes.Unauthenticated, "wrong": codes.Unauthenticated} {
		_, err := api.ListDeployments(withToken(t.Context(), what), &deployv1.ListDeploymentsRequest{})
		if status.Code(err) != want {
			t.Errorf("with the token %q: %v, want %v", what, err, want)
		}
	}
	_, err = api.CreateDeployment(ctx, &deployv1.CreateDeploymentRequest{Subdomain: "-", Image: "x", Tier: "gold"})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("bad input: %v, want InvalidArgument", err)
	}
}

func TestGRPCSaysWhatItOffersAndThatItIsWell(t *testing.T) {
	t.Parallel()
	s := platform(t)
	conn := dial(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	health, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil || health.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v %v", health, err)
	}
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{ListServices: "*"},
	}); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, service := range answer.GetListServicesResponse().GetService() {
		names = append(names, service.GetName())
	}
	for _, want := range []string{"slipway.deploy.v1.DeployService", "grpc.health.v1.Health"} {
		if !slices.Contains(names, want) {
			t.Errorf("reflection lists %v, without %s", names, want)
		}
	}
}
