package identity_test

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	claimv1 "github.com/slipway-paas/slipway/gen/slipway/claim/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/access"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/eventstore/memory"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/identity"
)

func make1(t *testing.T, store *memory.Store) *identity.Service {
	t.Helper()
	s, err := identity.New(identity.Config{}, identity.Deps{Store: store, Seal: sealer(t), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func run(t *testing.T, s *identity.Service) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("identity did not stop cleanly: %v", err)
		}
	})
	eventually(t, "identity is ready", func() bool { return s.Ready() == nil })
}

func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !so(); {
		if time.Now().After(deadline) {
			t.Fatalf("never so: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func ask(t *testing.T, s *identity.Service, token string) (*identityv1.Principal, int) {
	t.Helper()
	hash := sha256.Sum256([]byte(token))
	res, err := s.Authenticate(t.Context(), &identityv1.AuthenticateRequest{TokenSha256: hash[:]})
	if err != nil {
		return nil, problem.From(err).Status
	}
	return res.GetPrincipal(), 200
}

func TestTheFirstOperatorIsMadeOnceAndItsTokenSpeaksForIt(t *testing.T) {
	t.Parallel()
	store := memory.New()
	s := make1(t, store)
	made, created, err := s.Bootstrap(t.Context())
	if err != nil || !created {
		t.Fatalf("got %v, %v", created, err)
	}
	if !strings.HasPrefix(made.AccessToken, "slp_") || len(made.AccessToken) != 47 || made.OrgID != "default" {
		t.Errorf("got %+v", made)
	}
	if id, err := uuid.Parse(made.OperatorID); err != nil || id.Version() != 7 {
		t.Errorf("the operator's id is %s", made.OperatorID)
	}
	again, created, err := s.Bootstrap(t.Context())
	if err != nil || created || again.AccessToken != "" || again.OperatorID != made.OperatorID || again.AppID != made.AppID {
		t.Errorf("the second time gave %+v, %v, %v", again, created, err)
	}

	if _, code := ask(t, s, made.AccessToken); code != 503 {
		t.Errorf("before the log was read: %d, want 503", code)
	}
	run(t, s)
	p, code := ask(t, s, made.AccessToken)
	if code != 200 || p.GetOperatorId() != made.OperatorID || p.GetOrgId() != "default" || p.GetAppId() != made.AppID || !slices.Equal(p.GetScopes(), []string{identity.ScopeDeploy, access.AppsWrite, access.EventsRead, identity.ScopeAdmin}) {
		t.Errorf("the token speaks for %v (%d)", p, code)
	}
	for _, wrong := range []string{"", "slp_", made.AccessToken + "x"} {
		if _, code := ask(t, s, wrong); code != 401 {
			t.Errorf("%q gave %d, want 401", wrong, code)
		}
	}
	if _, err := s.Authenticate(t.Context(), &identityv1.AuthenticateRequest{TokenSha256: []byte("short")}); problem.From(err).Status != 401 {
		t.Errorf("half a hash: %v", err)
	}
}

func TestProcessesThatStartAtOnceMakeOneOperator(t *testing.T) {
	t.Parallel()
	store := memory.New()
	var mu sync.Mutex
	ids, tokens := map[string]bool{}, 0
	var starting sync.WaitGroup
	for range 16 {
		starting.Go(func() {
			c, created, err := make1(t, store).Bootstrap(t.Context())
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			ids[c.OperatorID] = true
			if created {
				tokens++
			}
		})
	}
	starting.Wait()
	if len(ids) != 1 || tokens != 1 {
		t.Errorf("%d operators and %d tokens, want one of each", len(ids), tokens)
	}
}

func TestALostTokenIsReplacedAndEnds(t *testing.T) {
	t.Parallel()
	store := memory.New()
	s := make1(t, store)
	if _, err := s.ReplaceToken(t.Context()); err == nil {
		t.Error("the token of nobody was replaced")
	}
	lost, _, err := s.Bootstrap(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	found, err := s.ReplaceToken(t.Context())
	if err != nil || found.OperatorID != lost.OperatorID || found.AccessToken == lost.AccessToken {
		t.Fatalf("got %+v, %v", found, err)
	}
	eventually(t, "the new token holds", func() bool { _, code := ask(t, s, found.AccessToken); return code == 200 })
	if _, code := ask(t, s, lost.AccessToken); code != 401 {
		t.Errorf("the lost token gave %d, want 401", code)
	}
}

func TestNoTokenIsInTheLog(t *testing.T) {
	t.Parallel()
	store := memory.New()
	made, _, err := make1(t, store).Bootstrap(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	events, err := store.Load(t.Context(), subjects.Of("default", subjects.Operator, made.OperatorID), 0)
	if err != nil || len(events) != 1 {
		t.Fatalf("got %d events, %v", len(events), err)
	}
	stored := events[0].Payload.(*identityv1.OperatorBootstrapped)
	if strings.Contains(stored.String(), made.AccessToken) || strings.Contains(string(stored.GetTokenSha256()), made.AccessToken) {
		t.Error("the log holds the token")
	}
}

func TestAFirstOperatorOfBeforeThereWereAdminsIsMadeOne(t *testing.T) {
	t.Parallel()
	store := memory.New()
	hash := sha256.Sum256([]byte("slp_old"))
	self := subjects.Of("default", subjects.Operator, "op-1")
	for id, e := range map[subjects.Aggregate]proto.Message{
		subjects.Of(subjects.Platform, subjects.Claim, "first-operator"): &claimv1.ClaimTaken{Kind: "first_operator", Name: "default", Holder: self.String()},
		self: &identityv1.OperatorBootstrapped{OperatorId: "op-1", OrgId: "default", AppId: "app-1", TokenSha256: hash[:], Scopes: []string{identity.ScopeDeploy}},
	} {
		if _, err := store.Record(t.Context(), eventstore.Event{Aggregate: id, ID: id.String(), Payload: e, Time: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	s := make1(t, store)
	run(t, s)
	var starting sync.WaitGroup
	for range 8 {
		starting.Go(func() {
			if c, created, err := s.Bootstrap(t.Context()); err != nil || created || c.OperatorID != "op-1" {
				t.Errorf("%+v, %v, %v", c, created, err)
			}
		})
	}
	starting.Wait()
	eventually(t, "its token is an admin's", func() bool {
		p, _ := ask(t, s, "slp_old")
		return slices.Equal(p.GetScopes(), []string{identity.ScopeDeploy, access.AppsWrite, access.EventsRead, identity.ScopeAdmin})
	})
	if events, err := store.Load(t.Context(), self, 0); err != nil || len(events) != 2 {
		t.Errorf("%d events, %v", len(events), err)
	}
}
