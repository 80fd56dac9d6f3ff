package grant_test

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/decider/gwt"
	"github.com/slipway-paas/slipway/services/identity/grant"
)

const callback = "https://example.com/callback"

var verifier = strings.Repeat("verifier-0123.~_", 3)

func h(s string) grant.Hash { return sha256.Sum256([]byte(s)) }

func hashes(n int) grant.TokenHashes {
	return grant.TokenHashes{Access: h(fmt.Sprint("access", n)), Refresh: h(fmt.Sprint("refresh", n))}
}

func opened() *identityv1.GrantOpened {
	challenge, code := h(verifier), h("code")
	return &identityv1.GrantOpened{
		GrantId: "g1", OrgId: "acme", OperatorId: "op", ClientId: "c1", ClientName: "App", Scopes: []string{"deploy:manage", "deploy:read"},
		RedirectUri: callback, CodeChallenge: challenge[:], CodeSha256: code[:], CodeExpiresAt: timestamppb.New(gwt.Start().Add(time.Minute)),
	}
}

func issued(n int, at time.Time, scopes ...string) *identityv1.IssuedTokens {
	t := hashes(n)
	return &identityv1.IssuedTokens{
		AccessSha256: t.Access[:], AccessExpiresAt: timestamppb.New(at.Add(time.Hour)), Scopes: scopes,
		RefreshSha256: t.Refresh[:], RefreshExpiresAt: timestamppb.New(at.Add(30 * 24 * time.Hour)),
	}
}

func redeem(change ...func(*grant.RedeemCode)) grant.RedeemCode {
	c := grant.RedeemCode{ClientID: "c1", Code: h("code"), RedirectURI: callback, Verifier: verifier, Tokens: hashes(1)}
	for _, f := range change {
		f(&c)
	}
	return c
}

func refresh(n int, scopes ...string) grant.UseRefresh {
	return grant.UseRefresh{ClientID: "c1", Refresh: h(fmt.Sprint("refresh", n)), Scopes: scopes, Tokens: hashes(n + 1)}
}

// second is the time of the n-th command of a story.
func second(n int) time.Time { return gwt.Start().Add(time.Duration(n) * time.Second) }

func both() []string { return []string{"deploy:manage", "deploy:read"} }

func TestACodeBecomesTokensOnce(t *testing.T) {
	t.Parallel()
	open := grant.Open{
		ID: "g1", OrgID: "acme", OperatorID: "op", ClientID: "c1", ClientName: "App", Scopes: []string{"deploy:read", "deploy:manage"},
		RedirectURI: callback, Challenge: h(verifier), Code: h("code"),
	}
	story := gwt.New(t, grant.Decider()).When(open).Then(opened()).
		When(redeem()).Then(&identityv1.CodeRedeemed{Tokens: issued(1, second(1), both()...)})
	if _, ok := story.State().AccessToken(h("access1"), second(2)); !ok {
		t.Error("the access token is not valid")
	}
	if _, ok := story.State().AccessToken(h("access1"), second(3601)); ok {
		t.Error("the access token is valid after its hour")
	}
	// Who redeems it again, with or without the verifier, ends what it issued.
	story.When(redeem(func(c *grant.RedeemCode) { c.Verifier = "" })).Then(&identityv1.GrantRevoked{Reason: grant.ReasonCodeReused})
	if s := story.State(); s.Live(second(4)) || s.HoldsRefresh(h("refresh1"), second(4)) {
		t.Error("the grant lives on")
	}
	if _, ok := story.State().AccessToken(h("access1"), second(4)); ok {
		t.Error("the access token lives on")
	}
	story.When(refresh(1)).ThenError(grant.CodeInvalidGrant)
	story.When(redeem()).ThenError(grant.CodeInvalidGrant)
}

func TestACodeIsForWhoAskedForItAndForAMinute(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(*grant.RedeemCode){
		"another code":        func(c *grant.RedeemCode) { c.Code = h("guess") },
		"another client":      func(c *grant.RedeemCode) { c.ClientID = "c2" },
		"another redirect":    func(c *grant.RedeemCode) { c.RedirectURI += "/" },
		"no redirect":         func(c *grant.RedeemCode) { c.RedirectURI = "" },
		"no verifier":         func(c *grant.RedeemCode) { c.Verifier = "" },
		"another verifier":    func(c *grant.RedeemCode) { c.Verifier = strings.Repeat("x", 43) },
		"the challenge again": func(c *grant.RedeemCode) { challenge := h(verifier); c.Verifier = string(challenge[:]) },
		"a short verifier":    func(c *grant.RedeemCode) { c.Verifier = verifier[:42] },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			story := gwt.New(t, grant.Decider()).Given(opened())
			story.When(redeem(change)).ThenError(grant.CodeInvalidGrant)
			// It was no use of the code: its owner still may.
			story.When(redeem()).Then(&identityv1.CodeRedeemed{Tokens: issued(1, second(1), both()...)})
		})
	}
	late := gwt.New(t, grant.Decider()).Given(opened()).At(gwt.Start().Add(time.Minute))
	late.When(redeem()).ThenError(grant.CodeInvalidGrant)
	gwt.New(t, grant.Decider()).When(redeem()).ThenError(grant.CodeInvalidGrant)
}

func TestRefreshTokensTakeTurnsAndAReusedOneEndsTheFamily(t *testing.T) {
	t.Parallel()
	story := gwt.New(t, grant.Decider()).
		Given(opened(), &identityv1.CodeRedeemed{Tokens: issued(1, second(1), both()...)}).
		When(refresh(1, "deploy:read")).Then(&identityv1.TokensRefreshed{Tokens: issued(2, second(2), "deploy:read")}).
		When(refresh(2)).Then(&identityv1.TokensRefreshed{Tokens: issued(3, second(3), both()...)})
	story.When(refresh(3, "deploy:manage", "admin")).ThenError(grant.CodeInvalidScope)
	story.When(refresh(9)).ThenError(grant.CodeInvalidGrant)
	story.When(grant.UseRefresh{ClientID: "c2", Refresh: h("refresh1"), Tokens: hashes(4)}).ThenError(grant.CodeInvalidGrant)
	revoked := story.When(refresh(1)).Then(&identityv1.GrantRevoked{Reason: grant.ReasonRefreshReused})
	revoked.When(refresh(3)).ThenError(grant.CodeInvalidGrant)
	if end := revoked.State(); len(end.Access) != 0 || end.HoldsRefresh(h("refresh3"), second(5)) {
		t.Errorf("tokens live on: %+v", end)
	}
}

func TestTokensEndWithTheirTime(t *testing.T) {
	t.Parallel()
	story := gwt.New(t, grant.Decider()).Given(opened(), &identityv1.CodeRedeemed{Tokens: issued(1, second(1), both()...)})
	story.At(second(1).Add(grant.RefreshFor)).When(refresh(1)).ThenError(grant.CodeInvalidGrant)
	// However often it is refreshed, a grant ends ninety days after consent.
	at := gwt.Start()
	for n := 1; n < 5; n++ {
		at = at.Add(20 * 24 * time.Hour)
		event, err := grant.Decide(story.State(), refresh(n), at)
		if err != nil {
			t.Fatal(err)
		}
		tokens := event.(*identityv1.TokensRefreshed).GetTokens()
		if last := gwt.Start().Add(grant.GrantFor); tokens.GetRefreshExpiresAt().AsTime().After(last) {
			t.Errorf("the refresh token of day %d ends %v, after %v", 20*n, tokens.GetRefreshExpiresAt().AsTime(), last)
		}
		story = story.At(at).Given(event)
	}
	if story.State().Live(gwt.Start().Add(grant.GrantFor)) {
		t.Error("the grant lives for ever")
	}
}

func TestAGrantRemembersNoMoreThanItMust(t *testing.T) {
	t.Parallel()
	events := []proto.Message{opened(), &identityv1.CodeRedeemed{Tokens: issued(1, second(1), both()...)}}
	for n := 2; n < 10; n++ {
		events = append(events, &identityv1.TokensRefreshed{Tokens: issued(n, second(n), both()...)})
	}
	state := gwt.New(t, grant.Decider()).Given(events...).State()
	if len(state.Access) != 5 || len(state.Former) != 8 {
		t.Errorf("%d access tokens and %d used refresh tokens", len(state.Access), len(state.Former))
	}
	if _, ok := state.AccessToken(h("access9"), second(10)); !ok {
		t.Error("the newest is not among them")
	}
}

func TestRevoking(t *testing.T) {
	t.Parallel()
	first := []proto.Message{opened(), &identityv1.CodeRedeemed{Tokens: issued(1, second(1), both()...)}, &identityv1.TokensRefreshed{Tokens: issued(2, second(2), both()...)}}
	access := h("access1")
	story := gwt.New(t, grant.Decider()).Given(first...)
	story.When(grant.RevokeToken{ClientID: "c2", Token: access}).ThenNothing()
	story.When(grant.RevokeToken{ClientID: "c1", Token: h("nobody's")}).ThenNothing()
	story = story.When(grant.RevokeToken{ClientID: "c1", Token: access}).Then(&identityv1.AccessTokenRevoked{AccessSha256: access[:]})
	if s := story.State(); len(s.Access) != 1 || !s.HoldsRefresh(h("refresh2"), second(4)) {
		t.Errorf("more than one token ended: %+v", s)
	}
	for _, token := range []string{"refresh1", "refresh2"} {
		gwt.New(t, grant.Decider()).Given(first...).
			When(grant.RevokeToken{ClientID: "c1", Token: h(token)}).Then(&identityv1.GrantRevoked{Reason: grant.ReasonRevoked}).
			When(grant.Revoke{}).ThenNothing()
	}
	gwt.New(t, grant.Decider()).Given(first...).When(grant.Revoke{}).Then(&identityv1.GrantRevoked{Reason: grant.ReasonRevoked})
	gwt.New(t, grant.Decider()).When(grant.Revoke{}).ThenNothing()
}

func TestADeviceGetsAGrantOnce(t *testing.T) {
	t.Parallel()
	open := grant.OpenForDevice{
		ID: "d1", OrgID: "acme", OperatorID: "op", ClientID: "slipway-cli", ClientName: "slipway", Scopes: both(), DeviceID: "d1", Tokens: hashes(1),
	}
	story := gwt.New(t, grant.Decider()).When(open).Then(&identityv1.DeviceCodeRedeemed{
		GrantId: "d1", OrgId: "acme", OperatorId: "op", ClientId: "slipway-cli", ClientName: "slipway", Scopes: both(), DeviceId: "d1",
		Tokens: issued(1, gwt.Start(), both()...),
	})
	story.When(open).ThenError(grant.CodeInvalidGrant)
	if s := story.State(); s.OperatorID != "op" || !s.HoldsRefresh(h("refresh1"), second(2)) || !slices.Equal(s.Access[0].Scopes, both()) {
		t.Errorf("the grant is %+v", s)
	}
}

// A new event of the schema that is a grant's needs a fold and a line in this test.
func TestEveryEventOfAGrantHasAFold(t *testing.T) {
	t.Parallel()
	access := h("access1")
	begun := []proto.Message{opened(), &identityv1.CodeRedeemed{Tokens: issued(1, second(1), both()...)}}
	for name, c := range map[string]struct {
		given []proto.Message
		event proto.Message
	}{
		"GrantOpened":        {nil, opened()},
		"CodeRedeemed":       {begun[:1], begun[1]},
		"DeviceCodeRedeemed": {nil, &identityv1.DeviceCodeRedeemed{GrantId: "d1", Tokens: issued(1, second(1), both()...)}},
		"TokensRefreshed":    {begun, &identityv1.TokensRefreshed{Tokens: issued(2, second(2), both()...)}},
		"AccessTokenRevoked": {begun, &identityv1.AccessTokenRevoked{AccessSha256: access[:]}},
		"GrantRevoked":       {begun, &identityv1.GrantRevoked{Reason: "revoked"}},
	} {
		before := gwt.New(t, grant.Decider()).Given(c.given...).State()
		after := gwt.New(t, grant.Decider()).Given(append(slices.Clone(c.given), c.event)...).State()
		if fmt.Sprintf("%+v", before) == fmt.Sprintf("%+v", after) {
			t.Errorf("%s has no fold", name)
		}
	}
}
