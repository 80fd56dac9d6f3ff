package gateway_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/structpb"

	adminv1 "github.com/slipway-paas/slipway/gen/slipway/admin/v1"
	"github.com/slipway-paas/slipway/libs/problem"
)

// fakeAdmin answers what it was asked for.
type fakeAdmin struct {
	adminv1.UnimplementedAdminServiceServer
}

func (fakeAdmin) ListNodes(context.Context, *adminv1.ListNodesRequest) (*adminv1.ListNodesResponse, error) {
	return &adminv1.ListNodesResponse{Nodes: []*adminv1.Node{{NodeId: "n1", Status: "ready", MemoryMb: 1024, Instances: 2}}}, nil
}

func (fakeAdmin) DrainNode(_ context.Context, in *adminv1.DrainNodeRequest) (*adminv1.DrainNodeResponse, error) {
	if in.NodeId != "n1" {
		return nil, problem.NotFound("Node not found.")
	}
	return &adminv1.DrainNodeResponse{Node: &adminv1.Node{NodeId: in.NodeId, Status: "draining"}}, nil
}

func (fakeAdmin) UncordonNode(_ context.Context, in *adminv1.UncordonNodeRequest) (*adminv1.UncordonNodeResponse, error) {
	return &adminv1.UncordonNodeResponse{Node: &adminv1.Node{NodeId: in.NodeId, Status: "ready"}}, nil
}

func (fakeAdmin) GetProjection(_ context.Context, in *adminv1.GetProjectionRequest) (*adminv1.GetProjectionResponse, error) {
	return &adminv1.GetProjectionResponse{Projection: &adminv1.Projection{Name: in.Name, Version: 1}}, nil
}

func (fakeAdmin) ListDeadLetters(context.Context, *adminv1.ListDeadLettersRequest) (*adminv1.ListDeadLettersResponse, error) {
	return &adminv1.ListDeadLettersResponse{}, nil
}

func (fakeAdmin) RebuildProjection(_ context.Context, in *adminv1.RebuildProjectionRequest) (*adminv1.RebuildProjectionResponse, error) {
	return &adminv1.RebuildProjectionResponse{Name: in.Name, Events: 7, Differences: []string{"a", "b"}, Swapped: in.AcceptDifferences, Seconds: 1.5}, nil
}

func (fakeAdmin) GetDeadLetter(_ context.Context, in *adminv1.GetDeadLetterRequest) (*adminv1.GetDeadLetterResponse, error) {
	data, err := structpb.NewStruct(map[string]any{"n": 1})
	return &adminv1.GetDeadLetterResponse{DeadLetter: &adminv1.DeadLetter{Id: in.Id, Data: data}}, err
}

func (fakeAdmin) ReplayDeadLetter(context.Context, *adminv1.ReplayDeadLetterRequest) (*adminv1.ReplayDeadLetterResponse, error) {
	return nil, problem.InvalidState("The dead letter stays.")
}

func (fakeAdmin) DropDeadLetter(_ context.Context, in *adminv1.DropDeadLetterRequest) (*adminv1.DropDeadLetterResponse, error) {
	return &adminv1.DropDeadLetterResponse{Message: "dropped " + in.Id}, nil
}

func (fakeAdmin) RotateKeys(context.Context, *adminv1.RotateKeysRequest) (*adminv1.RotateKeysResponse, error) {
	return &adminv1.RotateKeysResponse{Key: "0a1b2c3d", DataKeys: 4, Rewrapped: 3, Dropped: []string{"ffffffff"}}, nil
}

func TestAdminsAreAnsweredOverREST(t *testing.T) {
	t.Parallel()
	s := begin(t)
	cases := []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/api/v1/admin/nodes", "", 200, `{"nodes":[{"node_id":"n1","status":"ready","memory_mb":1024,`},
		{"POST", "/api/v1/admin/nodes/n1/drain", "", 200, `"status":"draining"`},
		{"POST", "/api/v1/admin/nodes/n1/drain", "{}", 200, `"status":"draining"`},
		{"POST", "/api/v1/admin/nodes/n2/drain", "", 404, `"code":"not_found"`},
		{"POST", "/api/v1/admin/nodes/n1/drain", `{"x":1}`, 400, `"code":"malformed_request"`},
		{"POST", "/api/v1/admin/projections/deployments/rebuild", "", 200,
			`{"name":"deployments","events":7,"rows":0,"identical":false,"differences":["a","b"],"seconds":1.5,"swapped":false}`},
		{"POST", "/api/v1/admin/projections/deployments/rebuild?accept_differences=true", "", 200, `"swapped":true`},
		{"GET", "/api/v1/admin/dead-letters/deployments-7", "", 200, `"id":"deployments-7"`},
		{"GET", "/api/v1/admin/dead-letters/deployments-7", "", 200, `"data":{"n":1}`},
		{"POST", "/api/v1/admin/dead-letters/deployments-7/replay", "", 422, `"code":"invalid_state"`},
		{"DELETE", "/api/v1/admin/dead-letters/deployments-7", "", 200, `{"message":"dropped deployments-7"}`},
		{"POST", "/api/v1/admin/keys/rotate", "", 200,
			`{"key":"0a1b2c3d","resumed":false,"data_keys":4,"rewrapped":3,"unreadable":0,"dropped":["ffffffff"],"old":[]}`},
		{"DELETE", "/api/v1/admin/nodes", "", 405, `"code":"method_not_allowed"`},
	}
	for _, c := range cases {
		got := s.call(t, c.method, c.path, c.body, "Authorization: Bearer "+adminToken)
		if got.status != c.status || !strings.Contains(got.body, c.want) {
			t.Errorf("%s %s: %d %s, want %d with %s", c.method, c.path, got.status, got.body, c.status, c.want)
		}
	}
}

func TestOnlyAdminsRunThePlatform(t *testing.T) {
	t.Parallel()
	s := begin(t)
	paths := []string{"GET /nodes", "POST /nodes/n1/drain", "POST /nodes/n1/uncordon", "GET /projections/deployments", "POST /projections/deployments/rebuild",
		"GET /dead-letters", "GET /dead-letters/deployments-1", "POST /dead-letters/deployments-1/replay", "DELETE /dead-letters/deployments-1", "POST /keys/rotate"}
	for _, p := range paths {
		method, path, _ := strings.Cut(p, " ")
		if got := s.call(t, method, "/api/v1/admin"+path, ""); got.status != 403 || !strings.Contains(got.body, "scope admin") {
			t.Errorf("%s without the scope: %d %s", p, got.status, got.body)
		}
		if got := s.call(t, method, "/api/v1/admin"+path, "", "Authorization: "); got.status != 401 {
			t.Errorf("%s without a token: %d", p, got.status)
		}
	}
	doc := s.call(t, "GET", "/openapi.json", "", "Authorization: ").body
	for _, want := range []string{"/api/v1/admin/nodes/{node_id}/drain", `"differences":{"items":{"type":"string"},"type":"array"}`} {
		if !strings.Contains(doc, want) {
			t.Errorf("the API's document lacks %s", want)
		}
	}
}
