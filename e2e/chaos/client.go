package chaos

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/slipway-paas/slipway/e2e/client"
)

const (
	apps = "/api/deploy/apps"
	tier = "buddo-starter"
	// secret is the variable that tells each app the trace of its own create.
	secret = "SECRET"
	// answerWithin bounds one call: a client that waits longer has lost patience.
	answerWithin = 15 * time.Second
)

// owner is one client with its own names.
type owner struct {
	number int
	api    string
	image  string
	// token is the operator's access token.
	token  string
	ledger *ledger
	slots  [slots]slot
}

// slot is what the client believes of one of its names.
type slot struct {
	subdomain  string
	deployment string
	stopped    bool
	// asked says that a create is in doubt, doomed that a destroy is.
	asked, doomed bool
}

// tracing adds the trace that a command is known by.
type tracing struct{ parent string }

func (t tracing) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("traceparent", t.parent)
	return http.DefaultTransport.RoundTrip(r)
}

// act takes the client's steps of a round.
func (o *owner) act(ctx context.Context, round int, wants []step) {
	begun := time.Now()
	for _, s := range wants {
		if sleep(ctx, time.Until(begun.Add(s.at))) != nil {
			return
		}
		o.ask(ctx, round, s)
	}
}

// choose is what the client wants of a slot.
func (s slot) choose(choice float64) string {
	switch {
	case s.deployment == "":
		return create
	case s.doomed:
		return destroy
	case s.stopped && choice < 0.6:
		return restart
	case s.stopped:
		return destroy
	case choice < 0.5:
		return restart
	case choice < 0.7:
		return stop
	}
	return destroy
}

func (o *owner) ask(ctx context.Context, round int, s step) {
	at := &o.slots[s.slot]
	trace := fmt.Sprintf("%016x%016x", s.trace[0], s.trace[1])
	done := command{round: round, client: o.number, kind: at.choose(s.choice), subdomain: at.subdomain, deployment: at.deployment, trace: trace}
	method, path, body := http.MethodPost, apps+"/"+at.deployment+"/"+done.kind, any(nil)
	switch done.kind {
	case create:
		path, body = apps, map[string]any{"image": o.image, "port": 8080, "subdomain": at.subdomain, "tier": tier, "env_vars": map[string]string{secret: trace}}
	case destroy:
		method, path = http.MethodDelete, apps+"/"+at.deployment
	}
	caller := client.Client{API: o.api, Token: o.token, HTTP: &http.Client{
		Timeout: answerWithin, Transport: tracing{"00-" + trace + "-" + trace[:16] + "-01"},
	}}
	answer, err := caller.Do(ctx, method, path, body)
	o.told(at, &done, answer, err)
	o.ledger.note(done)
}

// told notes what came back, and what the client believes from then on.
func (o *owner) told(at *slot, done *command, answer client.Answer, err error) {
	done.said = answer.String()
	switch {
	case err != nil:
		done.outcome, done.said = unknown, err.Error()
	case answer.Status >= 500:
		done.outcome = unknown
	case answer.Status < 300:
		done.outcome = acknowledged
	default:
		done.outcome = refused
		o.judge(*at, *done, answer.Status)
	}
	switch {
	case done.outcome == unknown && done.kind == create:
		at.asked = true
	case done.outcome == unknown && done.kind == destroy:
		at.doomed = true
	case done.outcome != acknowledged:
	case done.kind == create:
		id, _ := answer.Object("deployment")["id"].(string)
		if id == "" {
			o.ledger.blame(*done, "a create was acknowledged without an id")
		}
		done.deployment = id
		*at = slot{subdomain: at.subdomain, deployment: id}
	case done.kind == destroy:
		*at = slot{subdomain: at.subdomain}
	default:
		at.stopped = done.kind == stop
	}
}

// judge says which refusals break a promise: a client refuses nothing that it did not
// ask for twice itself.
func (o *owner) judge(at slot, done command, status int) {
	switch {
	case status == http.StatusConflict:
	case status == http.StatusUnprocessableEntity && (done.kind == restart || done.kind == stop):
	case status == http.StatusUnprocessableEntity && done.kind == create && at.asked:
	case status == http.StatusUnprocessableEntity && done.kind == destroy && at.doomed:
	case done.kind == create:
		o.ledger.blame(done, "a name that is free could not be taken")
	default:
		o.ledger.blame(done, "a deployment that was promised is refused")
	}
}

// learn corrects what the client believes by what is in the log.
func (o *owner) learn(h *history) {
	for i := range o.slots {
		at := &o.slots[i]
		*at = slot{subdomain: at.subdomain}
		if d := h.holder(at.subdomain); d != nil {
			at.deployment, at.stopped = d.id, d.status == statusStopped
		}
	}
}
