package scenarios

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	log "github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/subjects"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/e2e/stack"
)

// another is a client with an access token of another operator, in the org of that
// name. The events are written as identity would.
func another(t *testing.T, s *stack.Stack, org string, scopes ...string) *client.Client {
	t.Helper()
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	nc, err := natsconn.Connect(natsconn.Config{
		URL: s.NATS, SeedFile: filepath.Join(s.NATSKeys, "platform.nk"), Role: natsconn.RolePlatform, Name: t.Name(), Log: quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	token, operator := rand.Text(), uuid.NewString()
	hash := sha256.Sum256([]byte(token))
	for of, payload := range map[subjects.Aggregate]proto.Message{
		subjects.Of(org, subjects.Org, org): &identityv1.OrgCreated{OrgId: org, Name: org, OwnerId: operator},
		subjects.Of(org, subjects.Operator, operator): &identityv1.OperatorBootstrapped{
			OperatorId: operator, OrgId: org, AppId: uuid.NewString(), TokenSha256: hash[:], Scopes: scopes,
		},
	} {
		_, err = log.New(js, quiet).Append(t.Context(), eventstore.Expected{Event: eventstore.Event{
			Aggregate: of, ID: uuid.NewString(), Time: time.Now(), Source: "scenarios", Payload: payload,
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	c := &client.Client{API: s.API, Token: token}
	eventually(t, "identity knows the operator", func(ctx context.Context) (bool, string, error) {
		answer, err := c.Do(ctx, http.MethodGet, "/api/deploy/tiers", nil)
		return err == nil && answer.Status != http.StatusUnauthorized, answer.String(), nil
	})
	return c
}

func TestAnotherOperatorsDeploymentIsForbidden(t *testing.T) {
	t.Parallel()
	s := platform(t)
	a := deploy(t, s, map[string]any{"image": push(t, s, "latest", "one"), "port": 8080})
	stranger := another(t, s, "stranger-"+strings.ToLower(rand.Text()[:8]), "deploy:manage")
	for path, methods := range map[string][]string{
		"": {http.MethodGet, http.MethodDelete}, "/status": {http.MethodGet}, "/logs": {http.MethodGet}, "/events": {http.MethodGet},
		"/restart": {http.MethodPost}, "/stop": {http.MethodPost},
	} {
		for _, method := range methods {
			answer := call(t, stranger, method, a.path(path), nil)
			if answer.Status != http.StatusForbidden || answer.JSON()["code"] != "forbidden" {
				t.Errorf("a stranger's %s %s: got %.300s, want 403", method, path, answer)
			}
			isProblem(t, answer)
		}
	}
	if list := expect(t, stranger, http.StatusOK, http.MethodGet, "/api/deploy/apps", nil).List("deployments"); len(list) != 0 {
		t.Errorf("a stranger sees %v", list)
	}
	taken := call(t, stranger, http.MethodPost, "/api/deploy/apps",
		map[string]any{"subdomain": a.subdomain, "image": s.Image("e2e/x:1"), "tier": "buddo-starter"})
	if taken.Status != http.StatusUnprocessableEntity {
		t.Errorf("a stranger takes the same subdomain: %s", taken)
	}
	a.wait("running")
	a.serves("one")
}

func TestATokenWithoutTheScopeMayDoNothing(t *testing.T) {
	t.Parallel()
	s := platform(t)
	other := another(t, s, "scopeless-"+strings.ToLower(rand.Text()[:8]), "profile:read")
	for _, request := range []struct{ method, path string }{
		{http.MethodGet, "/api/deploy/tiers"}, {http.MethodGet, "/api/deploy/apps"}, {http.MethodPost, "/api/deploy/apps"},
	} {
		answer := call(t, other, request.method, request.path, nil)
		if answer.Status != http.StatusForbidden {
			t.Errorf("%s %s without deploy:manage: got %.300s, want 403", request.method, request.path, answer)
		}
		isProblem(t, answer)
	}
}
