package gateway_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	streamv1 "github.com/slipway-paas/slipway/gen/slipway/stream/v1"
	"github.com/slipway-paas/slipway/libs/access"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// Tokens of those who may read events, each of another kind.
const (
	readsEvents     = "slp_reads_events"
	readsByLogin    = "login_reads_events"
	readsByKey      = "slk_reads_events"
	readsElsewhere  = "slp_reads_another"
	readsOfPlatform = "slp_reads_platform"
)

func init() {
	reader := func(kind identityv1.CredentialKind, org string) *identityv1.Principal {
		return &identityv1.Principal{Kind: kind, OperatorId: "op-9", OrgId: org, AppId: "app-9", Scopes: []string{access.EventsRead}}
	}
	principals[readsEvents] = reader(accessToken, "default")
	principals[readsByLogin] = reader(identityv1.CredentialKind_CREDENTIAL_KIND_SESSION, "default")
	principals[readsByKey] = reader(identityv1.CredentialKind_CREDENTIAL_KIND_API_KEY, "default")
	principals[readsElsewhere] = reader(accessToken, "default-2")
	principals[readsOfPlatform] = reader(accessToken, subjects.Platform)
}

func (s *stage) subscribe(t *testing.T, query string, headers ...string) *sse {
	t.Helper()
	return s.open(t, "/api/v1/events?"+query, append([]string{"Authorization: Bearer " + readsEvents}, headers...)...)
}

// occur writes an event of an aggregate.
func (s *stage) occur(t *testing.T, a subjects.Aggregate, payload proto.Message) uint64 {
	t.Helper()
	sequence, err := s.store.Record(t.Context(), eventstore.Event{
		Aggregate: a, ID: a.ID + payloadName(payload), Payload: payload, Time: time.Date(2026, 5, 21, 10, 0, 0, 0, time.UTC), Source: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	return sequence
}

func payloadName(m proto.Message) string { return string(m.ProtoReflect().Descriptor().Name()) }

func TestAnOrganizationFollowsItsEventsAndNobodyElses(t *testing.T) {
	t.Parallel()
	s := begin(t)
	id := s.requested(t)
	for _, org := range []string{"default-2", "defaul", subjects.Platform} {
		s.occur(t, subjects.Of(org, subjects.Deployment, "theirs-"+org), &deploymentv1.DeploymentRunning{})
	}
	s.occur(t, subjects.Of("default", subjects.APIKey, "k1"), &identityv1.ApiKeyCreated{KeyId: "k1", Name: "ci", KeySha256: []byte("planted-hash")})
	s.happen(t, id, &deploymentv1.RouteBound{ReleaseId: "r1"})

	stream := s.subscribe(t, "")
	if got := stream.res.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/event-stream") {
		t.Fatalf("got %d %s", stream.res.StatusCode, got)
	}
	for i, want := range []string{"DeploymentRequested", "ApiKeyCreated", "RouteBound"} {
		got := stream.next(t)
		if got["event"] != want {
			t.Fatalf("event %d is %v, want %s", i, got, want)
		}
		if strings.Contains(got["data"], "theirs") || strings.Contains(got["data"], "planted") || strings.Contains(got["data"], "cGxhbnRlZ") || strings.Contains(got["data"], "sha256") {
			t.Errorf("it shows what it must not: %s", got["data"])
		}
	}
	if got := s.subscribe(t, "", "Authorization: Bearer "+readsElsewhere).next(t); !strings.Contains(got["data"], "theirs-default-2") {
		t.Errorf("the other organization got %v", got)
	}
	for _, credential := range []string{"Authorization: Bearer " + readsByLogin, "X-Api-Key: " + readsByKey} {
		headers := []string{credential}
		if strings.HasPrefix(credential, "X-") {
			headers = append(headers, "Authorization: ")
		}
		res := s.call(t, http.MethodHead, "/api/v1/events", "", headers...)
		if res.status != http.StatusOK {
			t.Errorf("%s: got %d", credential, res.status)
		}
	}
}

func TestAnOrganizationsEventsAreFilteredAndResumed(t *testing.T) {
	t.Parallel()
	s := begin(t)
	one := s.requested(t)
	two := s.requested(t)
	s.occur(t, subjects.Of("default", subjects.APIKey, "k1"), &identityv1.ApiKeyRevoked{})
	s.happen(t, one, &deploymentv1.RouteBound{ReleaseId: "r1"})
	s.happen(t, two, &deploymentv1.RouteBound{ReleaseId: "r2"})

	for query, want := range map[string][]string{
		"type=RouteBound":                                  {"4", "5"},
		"type=RouteBound&type=ApiKeyRevoked":               {"3", "4", "5"},
		"aggregate=apikey":                                 {"3"},
		"aggregate=deployment/" + two:                      {"2", "5"},
		"aggregate=deployment/" + two + "&type=RouteBound": {"5"},
		"aggregate=deployment&aggregate=deployment/" + two: {"1", "2", "4", "5"},
		"aggregate=apikey&aggregate=deployment/" + one:     {"1", "3", "4"},
		"after=3":                             {"4", "5"},
		"after=1&aggregate=deployment/" + one: {"4"},
	} {
		stream := s.subscribe(t, query)
		for _, sequence := range want {
			if got := stream.next(t); got["id"] != sequence {
				t.Errorf("%s: got %v, want %s", query, got, sequence)
			}
		}
		// The next thing said is that this is all.
		if stream.scanner.Scan(); stream.scanner.Text() != ": caught up" && stream.scanner.Text() != ": still here" {
			t.Errorf("%s: then came %q", query, stream.scanner.Text())
		}
	}
	if got := s.subscribe(t, "after=1", "Last-Event-ID: 4").next(t); got["id"] != "5" {
		t.Errorf("a browser that comes back gets %v", got)
	}
	live := s.subscribe(t, "after=5&type=DeploymentRunning")
	s.happen(t, two, &deploymentv1.DeploymentStopped{}, &deploymentv1.DeploymentRunning{})
	if got := live.next(t); got["id"] != "7" {
		t.Errorf("a live stream got %v", got)
	}
}

func TestAStreamOfEventsNobodyMayHaveIsRefused(t *testing.T) {
	t.Parallel()
	s := begin(t)
	for query, fields := range map[string]int{
		"type=Nothing": 1, "type=*": 1, "type=": 1, "aggregate=session": 1, "aggregate=*": 1, "aggregate=deployment/>": 1, "aggregate=deployment/": 1,
		"after=x": 1, "after=-1": 1, "after=1&after=2": 1, "after=99999999999999999999": 1, "after=18446744073709551615": 1, "types=RouteBound": 1,
		"org=default-2": 1, "type=Nothing&aggregate=session&after=x&what=else": 4, strings.Repeat("type=RouteBound&", 9): 1,
	} {
		got := s.call(t, "GET", "/api/v1/events?"+query, "", "Authorization: Bearer "+readsEvents)
		if listed, _ := got.json(t)["fields"].([]any); got.status != http.StatusUnprocessableEntity || len(listed) != fields {
			t.Errorf("%s: got %d %s", query, got.status, got.body)
		}
	}
	if got := s.call(t, "GET", "/api/v1/events", "", "Authorization: Bearer "+readsEvents, "Last-Event-ID: x"); got.status != http.StatusUnprocessableEntity {
		t.Errorf("a wrong Last-Event-ID: got %d", got.status)
	}
	if got := s.call(t, "GET", "/api/v1/events?%zz", "", "Authorization: Bearer "+readsEvents); got.status != http.StatusBadRequest {
		t.Errorf("a broken query: got %d", got.status)
	}
	for token, want := range map[string]int{"nope": 401, ownerToken: 403, readerToken: 403} {
		if got := s.call(t, "GET", "/api/v1/events", "", "Authorization: Bearer "+token); got.status != want {
			t.Errorf("%s: got %d, want %d", token, got.status, want)
		}
	}
	if got := s.call(t, "GET", "/api/v1/events", "", "Authorization: Bearer "+readsOfPlatform); got.status < 400 {
		t.Errorf("the platform's own events were given: %d", got.status)
	}
}

func TestAStreamOfEventsEndsWithTheAccessToIt(t *testing.T) {
	t.Parallel()
	s := begin(t)
	s.requested(t)
	stream := s.subscribe(t, "")
	stream.next(t)
	s.identity.mu.Lock()
	s.identity.fails = problem.Unauthorized("It has ended.")
	s.identity.mu.Unlock()
	if got := stream.next(t); got != nil {
		t.Errorf("got %v, want the end", got)
	}
	if err := stream.scanner.Err(); err != nil {
		t.Errorf("it ended with %v, want a clean end", err)
	}
}

func TestAnOrganizationsEventsOverGRPC(t *testing.T) {
	t.Parallel()
	s := begin(t)
	id := s.requested(t)
	s.occur(t, subjects.Of("default-2", subjects.Deployment, "theirs"), &deploymentv1.RouteBound{})
	s.happen(t, id, &deploymentv1.RouteBound{ReleaseId: "r1"})
	client := streamv1.NewEventServiceClient(s.dial(t))
	stream, err := client.FollowEvents(as(t, readsEvents), &streamv1.FollowEventsRequest{Types: []string{"RouteBound"}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := stream.Recv(); err != nil || got.GetSequence() != 3 || got.GetSubject() != "deployment/"+id {
		t.Errorf("got %v, %v", got, err)
	}
	stream, err = client.FollowEvents(as(t, readsEvents), &streamv1.FollowEventsRequest{Types: []string{"Nothing"}})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.InvalidArgument || len(problem.From(err).Fields) != 1 {
		t.Errorf("a wrong type: %v", err)
	}
}
