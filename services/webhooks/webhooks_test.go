package webhooks_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	webhooksv1 "github.com/slipway-paas/slipway/gen/slipway/webhooks/v1"
	"github.com/slipway-paas/slipway/libs/caller"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/rpc"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/webhooks"
)

// world is the service on a real log.
type world struct {
	js     natsjs.JetStream
	store  eventstore.Store
	client webhooksv1.WebhookServiceClient
	ahead  atomic.Int64 // how far the clock is ahead
	config webhooks.Config
	// figures are those of the service that was started last.
	figures *prometheus.Registry
	start   func() (stop func())
}

func begin(t *testing.T, c webhooks.Config) *world {
	t.Helper()
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	keys, err := natsconn.EnsureKeys(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	server, err := natsconn.StartEmbedded(natsconn.EmbeddedConfig{Listen: "127.0.0.1:0", StoreDir: filepath.Join(dir, "store"), Keys: keys, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	nc, err := natsconn.Connect(natsconn.Config{URL: server.URL(), SeedFile: server.SeedFile(natsconn.RolePlatform), Name: t.Name(), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	w := &world{config: c}
	if w.js, err = natsjs.New(nc); err != nil {
		t.Fatal(err)
	}
	if err := natsconn.Provision(t.Context(), w.js, 1); err != nil {
		t.Fatal(err)
	}
	w.store = jetstream.New(w.js, log)
	bucket, err := w.js.KeyValue(t.Context(), subjects.BucketKeys)
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := seal.Unlock(t.Context(), seal.From{File: filepath.Join(dir, "master.key")}, bucket)
	if err != nil {
		t.Fatal(err)
	}
	w.start = func() func() {
		w.figures = prometheus.NewRegistry()
		s, err := webhooks.New(w.config, webhooks.Deps{
			Store: w.store, JetStream: w.js, Seal: sealer, Version: "1", Log: log, Metrics: w.figures, Jitter: func() float64 { return 0.5 },
			Now: func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) },
		})
		if err != nil {
			t.Fatal(err)
		}
		inside, err := rpc.NewMemory(log)
		if err != nil {
			t.Fatal(err)
		}
		s.Register(inside)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		w.client = webhooksv1.NewWebhookServiceClient(inside.Conn())
		eventually(t, "the service is ready", func() bool { return s.Ready() == nil })
		return sync.OnceFunc(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("it did not stop cleanly: %v", err)
			}
			_ = inside.Close()
		})
	}
	stop := w.start()
	t.Cleanup(func() { stop() })
	stopFirst := stop
	start := w.start
	w.start = func() func() {
		stopFirst()
		stop = start()
		return stop
	}
	return w
}

func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !so(); {
		if time.Now().After(deadline) {
			t.Fatalf("never so: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// as is a call of a member of an organization with that role.
func as(t *testing.T, org, role string) context.Context {
	t.Helper()
	ctx, err := caller.Outgoing(t.Context(), &identityv1.Principal{OperatorId: "op-1", OrgId: org, Role: role})
	if err != nil {
		t.Fatal(err)
	}
	return ctx
}

func (w *world) happen(t *testing.T, org, id string, payload proto.Message) uint64 {
	t.Helper()
	sequence, err := w.store.Record(t.Context(), eventstore.Event{
		Aggregate: subjects.Of(org, subjects.Deployment, id), ID: id + string(payload.ProtoReflect().Descriptor().Name()), Payload: payload, Time: time.Now(), Source: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	return sequence
}

// endpoint notes what it is sent, and answers as it is told.
type endpoint struct {
	*httptest.Server
	mu         sync.Mutex
	got        []received
	answer     int
	retryAfter string
}

type received struct {
	header http.Header
	body   []byte
}

func listen(t *testing.T) *endpoint {
	t.Helper()
	e := &endpoint{answer: http.StatusNoContent}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		e.mu.Lock()
		defer e.mu.Unlock()
		e.got = append(e.got, received{r.Header, body})
		w.Header().Set("Location", "http://127.0.0.1:1/")
		if e.retryAfter != "" {
			w.Header().Set("Retry-After", e.retryAfter)
		}
		w.WriteHeader(e.answer)
	}))
	t.Cleanup(e.Close)
	return e
}

func (e *endpoint) answers(code int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answer = code
}

// busy answers with a status and a Retry-After.
func (e *endpoint) busy(code int, retryAfter string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answer, e.retryAfter = code, retryAfter
}

func (e *endpoint) received() []received {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]received(nil), e.got...)
}

var inside = webhooks.Config{AllowHTTP: true, AllowNetworks: []string{"127.0.0.0/8"}}

func (w *world) create(t *testing.T, in *webhooksv1.CreateWebhookRequest) *webhooksv1.CreateWebhookResponse {
	t.Helper()
	made, err := w.client.CreateWebhook(as(t, "acme", "admin"), in)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func (w *world) deliveries(t *testing.T, id string) []*webhooksv1.WebhookDelivery {
	t.Helper()
	res, err := w.client.ListWebhookDeliveries(as(t, "acme", "admin"), &webhooksv1.ListWebhookDeliveriesRequest{Id: id})
	if err != nil {
		t.Fatal(err)
	}
	return res.GetDeliveries()
}

func TestAnEndpointIsToldOfItsOrganizationsEventsSigned(t *testing.T) {
	t.Parallel()
	w, e := begin(t, inside), listen(t)
	w.happen(t, "acme", "before", &deploymentv1.DeploymentRunning{})
	made := w.create(t, &webhooksv1.CreateWebhookRequest{Url: e.URL + "/hook?key=planted-key", Types: []string{"DeploymentRunning"}, Aggregates: []string{"deployment"}})
	w.happen(t, "other", "theirs", &deploymentv1.DeploymentRunning{})
	w.happen(t, "acme", "d1", &deploymentv1.DeploymentStopped{})
	sequence := w.happen(t, "acme", "d1", &deploymentv1.DeploymentRunning{})
	eventually(t, "it is told", func() bool { return len(e.received()) == 1 })
	got := e.received()[0]
	verifier, err := standardwebhooks.NewWebhook(made.GetSecret())
	if err != nil {
		t.Fatal(err)
	}
	if err := verifier.Verify(got.body, got.header); err != nil {
		t.Errorf("the signature: %v", err)
	}
	var event map[string]any
	if err := json.Unmarshal(got.body, &event); err != nil || event["type"] != "DeploymentRunning" || event["subject"] != "deployment/d1" || event["sequence"] != float64(sequence) {
		t.Errorf("it was sent %s, %v", got.body, err)
	}
	eventually(t, "the delivery is listed", func() bool {
		all := w.deliveries(t, made.GetWebhook().GetId())
		return len(all) == 1 && all[0].GetStatus() == "delivered" && all[0].GetLastStatus() == 204 && all[0].GetAttempts() == 1 && all[0].GetId() == got.header.Get("webhook-id")
	})
	// Neither the secret nor the URL is in the log in clear.
	stream, err := w.js.Stream(t.Context(), subjects.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= sequence; i++ {
		msg, err := stream.GetMsg(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		if text := string(msg.Data); strings.Contains(text, made.GetSecret()[6:]) || strings.Contains(text, "planted-key") {
			t.Errorf("the event %s shows them", msg.Subject)
		}
	}

	// After a rotation both secrets sign; a replay is the same message again.
	rotated, err := w.client.RotateWebhookSecret(as(t, "acme", "admin"), &webhooksv1.RotateWebhookSecretRequest{Id: made.GetWebhook().GetId()})
	if err != nil || rotated.GetSecret() == made.GetSecret() {
		t.Fatal(err)
	}
	replay, err := w.client.ReplayWebhook(as(t, "acme", "admin"), &webhooksv1.ReplayWebhookRequest{Id: made.GetWebhook().GetId(), DeliveryId: got.header.Get("webhook-id")})
	if err != nil || replay.GetReplayed() != 1 {
		t.Fatal(replay, err)
	}
	eventually(t, "it is told again", func() bool { return len(e.received()) == 2 })
	again := e.received()[1]
	for _, secret := range []string{made.GetSecret(), rotated.GetSecret()} {
		if verifier, err = standardwebhooks.NewWebhook(secret); err != nil || verifier.Verify(again.body, again.header) != nil {
			t.Errorf("a secret does not verify: %v", err)
		}
	}
	if again.header.Get("webhook-id") != got.header.Get("webhook-id") || string(again.body) != string(got.body) {
		t.Error("a replay is another message")
	}
	// From a sequence: what happened before there was a webhook too.
	eventually(t, "the replay has ended", func() bool { return w.deliveries(t, made.GetWebhook().GetId())[0].GetStatus() == "delivered" })
	replay, err = w.client.ReplayWebhook(as(t, "acme", "admin"), &webhooksv1.ReplayWebhookRequest{Id: made.GetWebhook().GetId()})
	if err != nil || replay.GetReplayed() != 2 || replay.GetLastSequence() != sequence {
		t.Fatal(replay, err)
	}
	eventually(t, "it is told of both", func() bool { return len(e.received()) == 4 })
}

func TestAFailedDeliveryIsTriedAgainAlsoByAnotherProcess(t *testing.T) {
	t.Parallel()
	w, e := begin(t, inside), listen(t)
	e.answers(http.StatusInternalServerError)
	id := w.create(t, &webhooksv1.CreateWebhookRequest{Url: e.URL, Types: []string{"DeploymentRunning"}}).GetWebhook().GetId()
	w.happen(t, "acme", "d1", &deploymentv1.DeploymentRunning{})
	eventually(t, "the first attempt is noted", func() bool {
		all := w.deliveries(t, id)
		return len(all) == 1 && all[0].GetAttempts() == 1 && all[0].GetLastStatus() == 500 && all[0].GetStatus() == "pending" && all[0].GetLastError() != ""
	})
	if _, err := w.client.ReplayWebhook(as(t, "acme", "admin"), &webhooksv1.ReplayWebhookRequest{Id: id, DeliveryId: w.deliveries(t, id)[0].GetId()}); problem.From(err).Status != 422 {
		t.Errorf("replaying what is under way: %v", err)
	}
	e.answers(http.StatusOK)
	w.ahead.Store(int64(time.Minute))
	w.start()
	eventually(t, "it is delivered", func() bool {
		all := w.deliveries(t, id)
		return len(all) == 1 && all[0].GetStatus() == "delivered" && all[0].GetAttempts() == 2
	})
	if got := e.received(); len(got) != 2 || got[0].header.Get("webhook-id") != got[1].header.Get("webhook-id") {
		t.Errorf("%d messages", len(got))
	}
}

func TestADeadEndpointIsDisabledAndMayBeEnabled(t *testing.T) {
	t.Parallel()
	w, e := begin(t, inside), listen(t)
	e.answers(http.StatusBadGateway)
	id := w.create(t, &webhooksv1.CreateWebhookRequest{Url: e.URL, Types: []string{"DeploymentRunning"}}).GetWebhook().GetId()
	w.happen(t, "acme", "d1", &deploymentv1.DeploymentRunning{})
	eventually(t, "it has failed", func() bool { return len(w.deliveries(t, id)) == 1 && w.deliveries(t, id)[0].GetLastStatus() == 502 })
	status := func() (string, string) {
		res, err := w.client.ListWebhooks(as(t, "acme", "owner"), &webhooksv1.ListWebhooksRequest{})
		if err != nil || len(res.GetWebhooks()) != 1 {
			t.Fatal(res, err)
		}
		return res.GetWebhooks()[0].GetStatus(), res.GetWebhooks()[0].GetDisabledReason()
	}
	w.ahead.Store(int64(6 * 24 * time.Hour))
	w.happen(t, "acme", "d2", &deploymentv1.DeploymentRunning{})
	eventually(t, "it is disabled", func() bool { s, why := status(); return s == "disabled" && why == "failing" })
	if _, err := w.client.EnableWebhook(as(t, "acme", "admin"), &webhooksv1.EnableWebhookRequest{Id: id}); err != nil {
		t.Fatal(err)
	}
	e.answers(http.StatusGone)
	w.happen(t, "acme", "d3", &deploymentv1.DeploymentRunning{})
	eventually(t, "it is gone", func() bool { s, why := status(); return s == "disabled" && why == "gone" })
}

func TestNothingIsSentToWhereStrangersMustNotReach(t *testing.T) {
	t.Parallel()
	w, e := begin(t, inside), listen(t)
	id := w.create(t, &webhooksv1.CreateWebhookRequest{Url: e.URL}).GetWebhook().GetId()
	// From here on it leads to where nothing may go, as when DNS changes.
	w.config = webhooks.Config{AllowHTTP: true}
	w.start()
	for _, inside := range []string{e.URL, strings.Replace(e.URL, "127.0.0.1", "localhost.", 1)} {
		if _, err := w.client.CreateWebhook(as(t, "acme", "admin"), &webhooksv1.CreateWebhookRequest{Url: inside}); problem.From(err).Status != 422 {
			t.Errorf("%s: %v", inside, err)
		}
	}
	w.happen(t, "acme", "d1", &deploymentv1.DeploymentRunning{})
	eventually(t, "it is refused", func() bool {
		all := w.deliveries(t, id)
		return len(all) > 0 && all[0].GetLastStatus() == 0 && strings.Contains(all[0].GetLastError(), "not public")
	})
	for _, got := range e.received() {
		if strings.Contains(string(got.body), "DeploymentRunning") {
			t.Errorf("it was sent %s", got.body)
		}
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	w, e := begin(t, inside), listen(t)
	e.answers(http.StatusTemporaryRedirect)
	id := w.create(t, &webhooksv1.CreateWebhookRequest{Url: e.URL, Types: []string{"DeploymentRunning"}}).GetWebhook().GetId()
	w.happen(t, "acme", "d1", &deploymentv1.DeploymentRunning{})
	eventually(t, "it has failed", func() bool {
		all := w.deliveries(t, id)
		return len(all) == 1 && all[0].GetLastStatus() == 307 && strings.Contains(all[0].GetLastError(), "redirect")
	})
}

func TestWebhooksAreTheirOrganizationsAdminsAlone(t *testing.T) {
	t.Parallel()
	w, e := begin(t, inside), listen(t)
	id := w.create(t, &webhooksv1.CreateWebhookRequest{Url: e.URL}).GetWebhook().GetId()
	for who, want := range map[[2]string]int{{"acme", "member"}: 403, {"acme", "viewer"}: 403, {"acme", ""}: 403, {"other", "owner"}: 404, {"_", "owner"}: 401} {
		ctx := as(t, who[0], who[1])
		_, deleting := w.client.DeleteWebhook(ctx, &webhooksv1.DeleteWebhookRequest{Id: id})
		_, rotating := w.client.RotateWebhookSecret(ctx, &webhooksv1.RotateWebhookSecretRequest{Id: id})
		_, enabling := w.client.EnableWebhook(ctx, &webhooksv1.EnableWebhookRequest{Id: id})
		_, listing := w.client.ListWebhookDeliveries(ctx, &webhooksv1.ListWebhookDeliveriesRequest{Id: id})
		_, replaying := w.client.ReplayWebhook(ctx, &webhooksv1.ReplayWebhookRequest{Id: id})
		_, showing := w.client.GetWebhook(ctx, &webhooksv1.GetWebhookRequest{Id: id})
		_, changing := w.client.UpdateWebhook(ctx, &webhooksv1.UpdateWebhookRequest{Id: id, Url: e.URL})
		_, testing := w.client.TestWebhook(ctx, &webhooksv1.TestWebhookRequest{Id: id})
		for i, err := range []error{deleting, rotating, enabling, listing, replaying, showing, changing, testing} {
			if problem.From(err).Status != want {
				t.Errorf("%v, call %d: %v, want %d", who, i, err, want)
			}
		}
	}
	if _, err := w.client.DeleteWebhook(as(t, "acme", "admin"), &webhooksv1.DeleteWebhookRequest{Id: id}); err != nil {
		t.Fatal(err)
	}
	if res, err := w.client.ListWebhooks(as(t, "acme", "admin"), &webhooksv1.ListWebhooksRequest{}); err != nil || len(res.GetWebhooks()) > 0 {
		t.Errorf("a deleted one: %v, %v", res, err)
	}
	for _, in := range []*webhooksv1.CreateWebhookRequest{
		{}, {Url: "ftp://example.com"}, {Url: "https://10.0.0.1/"}, {Url: "https://u:p@example.com"}, {Url: e.URL, Types: []string{"No"}},
		{Url: e.URL, Aggregates: []string{"session"}}, {Url: e.URL, Description: "a\nb"}, {Url: "https://a.example/\r\nx: y"},
	} {
		if _, err := w.client.CreateWebhook(as(t, "acme", "admin"), in); problem.From(err).Status != 422 {
			t.Errorf("%v: %v", in, err)
		}
	}
}
