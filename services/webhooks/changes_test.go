package webhooks_test

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	webhooksv1 "github.com/slipway-paas/slipway/gen/slipway/webhooks/v1"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/rpc"
)

func TestAWebhookMayLeadElsewhereWithTheSameSecret(t *testing.T) {
	t.Parallel()
	w, before, after := begin(t, inside), listen(t), listen(t)
	made := w.create(t, &webhooksv1.CreateWebhookRequest{Url: before.URL, Description: "old", Types: []string{"DeploymentStopped"}})
	admin, id := as(t, "acme", "admin"), made.GetWebhook().GetId()
	changed, err := w.client.UpdateWebhook(admin, &webhooksv1.UpdateWebhookRequest{Id: id, Url: after.URL, Types: []string{"DeploymentRunning"}})
	if err != nil {
		t.Fatal(err)
	}
	want := proto.CloneOf(made.GetWebhook())
	want.Url, want.Description, want.Types = after.URL, "", []string{"DeploymentRunning"}
	if !proto.Equal(changed.GetWebhook(), want) {
		t.Errorf("it became %v, want %v", changed.GetWebhook(), want)
	}
	if got, err := w.client.GetWebhook(admin, &webhooksv1.GetWebhookRequest{Id: id}); err != nil || !proto.Equal(got.GetWebhook(), want) {
		t.Errorf("it is %v, %v", got, err)
	}
	w.happen(t, "acme", "d1", &deploymentv1.DeploymentStopped{})
	w.happen(t, "acme", "d1", &deploymentv1.DeploymentRunning{})
	eventually(t, "the new endpoint is told", func() bool { return len(after.received()) == 1 })
	verifier, err := standardwebhooks.NewWebhook(made.GetSecret())
	if err != nil {
		t.Fatal(err)
	}
	if got := after.received()[0]; verifier.Verify(got.body, got.header) != nil {
		t.Error("the secret does not verify any more")
	}
	if got := before.received(); len(got) > 0 {
		t.Errorf("the old endpoint was sent %s", got[0].body)
	}
	for _, bad := range []*webhooksv1.UpdateWebhookRequest{{Id: id}, {Id: id, Url: "https://10.0.0.1"}, {Id: id, Url: after.URL, Types: []string{"No"}}} {
		if _, err := w.client.UpdateWebhook(admin, bad); problem.From(err).Status != 422 {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestAWebhookCanBeTested(t *testing.T) {
	t.Parallel()
	w, e := begin(t, inside), listen(t)
	made := w.create(t, &webhooksv1.CreateWebhookRequest{Url: e.URL, Types: []string{"DeploymentRunning"}})
	test := func() *webhooksv1.TestWebhookResponse {
		t.Helper()
		res, err := w.client.TestWebhook(as(t, "acme", "admin"), &webhooksv1.TestWebhookRequest{Id: made.GetWebhook().GetId()})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	if res := test(); !res.GetAccepted() || res.GetStatus() != 204 || res.GetError() != "" {
		t.Errorf("it says %v", res)
	} else if got := e.received()[0]; got.header.Get("webhook-id") != res.GetId() {
		t.Errorf("%s was sent as %s", res.GetId(), got.header.Get("webhook-id"))
	}
	verifier, err := standardwebhooks.NewWebhook(made.GetSecret())
	if err != nil {
		t.Fatal(err)
	}
	got := e.received()[0]
	if err := verifier.Verify(got.body, got.header); err != nil {
		t.Error(err)
	}
	var message map[string]any
	if err := json.Unmarshal(got.body, &message); err != nil || message["type"] != "WebhookTest" || message["specversion"] != "1.0" {
		t.Errorf("it was sent %s, %v", got.body, err)
	}
	e.answers(http.StatusTeapot)
	if res := test(); res.GetAccepted() || res.GetStatus() != 418 || res.GetError() == "" {
		t.Errorf("refused, it says %v", res)
	}
	e.Close()
	if res := test(); res.GetAccepted() || res.GetStatus() != 0 || res.GetError() == "" {
		t.Errorf("with nobody there it says %v", res)
	}
	if all := w.deliveries(t, made.GetWebhook().GetId()); len(all) > 0 {
		t.Errorf("tests are listed: %v", all)
	}
}

func TestABusyEndpointSaysWhenToComeBack(t *testing.T) {
	t.Parallel()
	w, e := begin(t, inside), listen(t)
	id := w.create(t, &webhooksv1.CreateWebhookRequest{Url: e.URL, Types: []string{"DeploymentRunning"}}).GetWebhook().GetId()
	for i, c := range []struct {
		status     int
		retryAfter string
		wait       time.Duration
	}{
		{http.StatusTooManyRequests, "120", 2 * time.Minute},
		{http.StatusServiceUnavailable, time.Now().Add(time.Hour).UTC().Format(http.TimeFormat), time.Hour},
		{http.StatusServiceUnavailable, "99999999", 6 * time.Hour},
		{http.StatusServiceUnavailable, "soon", 5 * time.Second},
		{http.StatusTooManyRequests, "-5", 5 * time.Second},
		{http.StatusInternalServerError, "120", 5 * time.Second},
	} {
		e.busy(c.status, c.retryAfter)
		sequence := w.happen(t, "acme", string(rune('a'+i)), &deploymentv1.DeploymentRunning{})
		var d *webhooksv1.WebhookDelivery
		eventually(t, "it has been tried", func() bool {
			all := w.deliveries(t, id)
			if len(all) == 0 || all[0].GetEventSequence() != sequence || all[0].GetLastError() == "" {
				return false
			}
			d = all[0]
			return true
		})
		// A date has no parts of a second, and the next attempt is counted from the answer.
		if got := d.GetNextAttemptAt().AsTime().Sub(d.GetLastAttemptAt().AsTime()); got < c.wait-2*time.Second || got > c.wait+10*time.Second {
			t.Errorf("%d with %q is tried again after %s, want %s", c.status, c.retryAfter, got, c.wait)
		}
	}
}

func TestAnEndpointThatIsGoneIsToldNothingMore(t *testing.T) {
	t.Parallel()
	w, e := begin(t, inside), listen(t)
	e.answers(http.StatusGone)
	id := w.create(t, &webhooksv1.CreateWebhookRequest{Url: e.URL, Types: []string{"DeploymentRunning"}}).GetWebhook().GetId()
	w.happen(t, "acme", "d1", &deploymentv1.DeploymentRunning{})
	eventually(t, "it is disabled", func() bool {
		res, err := w.client.GetWebhook(as(t, "acme", "admin"), &webhooksv1.GetWebhookRequest{Id: id})
		return err == nil && res.GetWebhook().GetStatus() == "disabled" && res.GetWebhook().GetDisabledReason() == "gone"
	})
	if all := w.deliveries(t, id); len(all) != 1 || all[0].GetStatus() != "failed" || all[0].GetAttempts() != 1 || all[0].GetNextAttemptAt() != nil {
		t.Errorf("the delivery is %v", all)
	}
	e.answers(http.StatusOK)
	w.happen(t, "acme", "d2", &deploymentv1.DeploymentRunning{})
	other := w.create(t, &webhooksv1.CreateWebhookRequest{Url: e.URL + "/other", Types: []string{"DeploymentStopped"}}).GetWebhook().GetId()
	w.happen(t, "acme", "d2", &deploymentv1.DeploymentStopped{})
	eventually(t, "what came later was told to others", func() bool {
		all := w.deliveries(t, other)
		return len(all) == 1 && all[0].GetStatus() == "delivered"
	})
	if all := w.deliveries(t, id); len(all) != 1 {
		t.Errorf("the deliveries are %v", all)
	}
}

// given is a call under that command's ID.
func given(t *testing.T, command string) context.Context {
	t.Helper()
	return rpc.WithCommandID(as(t, "acme", "admin"), command)
}

func TestACallMadeAgainDoesNothingTwiceAndTellsTheSameSecret(t *testing.T) {
	t.Parallel()
	w, e := begin(t, inside), listen(t)
	creating, rotating := uuid.NewString(), uuid.NewString()
	in := &webhooksv1.CreateWebhookRequest{Url: e.URL, Description: "once"}
	first, err := w.client.CreateWebhook(given(t, creating), in)
	if err != nil {
		t.Fatal(err)
	}
	rotated, err := w.client.RotateWebhookSecret(given(t, rotating), &webhooksv1.RotateWebhookSecretRequest{Id: first.GetWebhook().GetId()})
	if err != nil {
		t.Fatal(err)
	}
	w.start() // by another process too
	if again, err := w.client.CreateWebhook(given(t, creating), in); err != nil || !proto.Equal(again, first) {
		t.Errorf("created again: %v, %v; want %v", again, err, first)
	}
	if again, err := w.client.RotateWebhookSecret(given(t, rotating), &webhooksv1.RotateWebhookSecretRequest{Id: first.GetWebhook().GetId()}); err != nil || !proto.Equal(again, rotated) {
		t.Errorf("rotated again: %v, %v; want %v", again, err, rotated)
	}
	all, err := w.client.ListWebhooks(as(t, "acme", "admin"), &webhooksv1.ListWebhooksRequest{})
	if err != nil || len(all.GetWebhooks()) != 1 {
		t.Errorf("there are %v, %v", all, err)
	}
	if other, err := w.client.CreateWebhook(given(t, uuid.NewString()), in); err != nil || other.GetWebhook().GetId() == first.GetWebhook().GetId() {
		t.Errorf("another command: %v, %v", other, err)
	}
}

func TestDeliveriesCanBeWatched(t *testing.T) {
	t.Parallel()
	w, e := begin(t, inside), listen(t)
	e.answers(http.StatusInternalServerError)
	id := w.create(t, &webhooksv1.CreateWebhookRequest{Url: e.URL, Types: []string{"DeploymentRunning"}}).GetWebhook().GetId()
	figures := func() map[string]float64 {
		t.Helper()
		families, err := w.figures.Gather()
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				name := f.GetName()
				for _, l := range m.GetLabel() {
					name += " " + l.GetValue()
				}
				all[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
		return all
	}
	if got := figures(); got["slipway_webhooks_waiting"] != 0 || got["slipway_webhooks_oldest_waiting_seconds"] != 0 {
		t.Errorf("with nothing to do: %v", got)
	}
	w.happen(t, "acme", "d1", &deploymentv1.DeploymentRunning{})
	eventually(t, "it has failed once", func() bool { return len(w.deliveries(t, id)) == 1 && w.deliveries(t, id)[0].GetLastStatus() == 500 })
	w.ahead.Store(int64(4 * time.Second))
	if got := figures(); got["slipway_webhooks_waiting"] != 1 || got["slipway_webhooks_oldest_waiting_seconds"] < 4 || got["slipway_webhooks_oldest_waiting_seconds"] > 60 ||
		got["slipway_webhooks_deliveries_total delivered"] != 0 {
		t.Errorf("with one that waits: %v", got)
	}
	e.answers(http.StatusOK)
	w.ahead.Store(int64(time.Minute))
	eventually(t, "it is counted as delivered", func() bool { return figures()["slipway_webhooks_deliveries_total delivered"] == 1 })
	e.answers(http.StatusGone)
	w.happen(t, "acme", "d2", &deploymentv1.DeploymentRunning{})
	eventually(t, "one is counted as failed", func() bool { return figures()["slipway_webhooks_deliveries_total failed"] == 1 })
	if got := figures(); got["slipway_webhooks_retries_total"] != 1 || got["slipway_webhooks_waiting"] != 0 {
		t.Errorf("at the end: %v", got)
	}
	if problems, err := testutil.GatherAndLint(w.figures); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}
