package session_test

import (
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/access"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/services/identity/credential"
	"github.com/slipway-paas/slipway/services/identity/session"
)

var now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func open() session.Open {
	return session.Open{ID: "s", Operator: "ada", TokenSHA256: sha256.Sum256([]byte("eyJ")), ExpiresAt: now.Add(time.Hour), Epoch: 3}
}

func TestASessionIsItsOperatorsUntilItEnds(t *testing.T) {
	t.Parallel()
	event, err := session.Decide(session.State{}, open(), now)
	if err != nil {
		t.Fatal(err)
	}
	state := session.Evolve(session.State{}, eventstore.Recorded{Event: eventstore.Event{Payload: event}})
	want := []credential.Credential{{
		Hash: open().TokenSHA256, Kind: credential.Session, Operator: "ada", App: "s", Scopes: access.Scopes(),
		Expires: open().ExpiresAt, Bond: credential.ToLogin, Epoch: 3,
	}}
	if diff := cmp.Diff(want, state.Credentials()); diff != "" {
		t.Error(diff)
	}
	if _, err := session.Decide(state, open(), now); !errors.Is(err, session.ErrExists) {
		t.Errorf("opened twice: %v", err)
	}
	if got := (session.State{}).Credentials(); got != nil {
		t.Errorf("none gives %v", got)
	}
	short := &identityv1.SessionOpened{SessionId: "s", OperatorId: "ada", TokenSha256: []byte("short")}
	if got := session.Evolve(session.State{}, eventstore.Recorded{Event: eventstore.Event{Payload: short}}); got.ID != "" {
		t.Errorf("half a hash opens %v", got)
	}
}

func TestASessionNeedsAllOfIt(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*session.Open){
		"no id":         func(o *session.Open) { o.ID = "" },
		"no operator":   func(o *session.Open) { o.Operator = "" },
		"no hash":       func(o *session.Open) { o.TokenSHA256 = credential.Hash{} },
		"an end by now": func(o *session.Open) { o.ExpiresAt = now },
	} {
		o := open()
		change(&o)
		if _, err := session.Decide(session.State{}, o, now); !errors.Is(err, session.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
