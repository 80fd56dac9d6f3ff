package authn_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/slipway-paas/slipway/gen/slipway/admin/v1"
	deployv1 "github.com/slipway-paas/slipway/gen/slipway/deploy/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/access"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/eventstore/memory"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/gateway/authn"
)

const (
	session = identityv1.CredentialKind_CREDENTIAL_KIND_SESSION
	apiKey  = identityv1.CredentialKind_CREDENTIAL_KIND_API_KEY
)

// holding is an identity to which every token is that principal's.
func holding(p *identityv1.Principal) *identity {
	return &identity{answer: func([]byte) (*identityv1.AuthenticateResponse, error) {
		return &identityv1.AuthenticateResponse{Principal: p}, nil
	}}
}

func methods(s protoreflect.ServiceDescriptor) []string {
	var all []string
	for i := range s.Methods().Len() {
		all = append(all, fmt.Sprintf("/%s/%s", s.FullName(), s.Methods().Get(i).Name()))
	}
	return all
}

// Every method says which kinds of credential it takes; here is who may call what, with
// every scope that there is.
func TestEachMethodTakesTheKindsOfCredentialThatItIsFor(t *testing.T) {
	t.Parallel()
	accounts := identityv1.File_slipway_identity_v1_accounts_proto.Services()
	all := slices.Concat(
		methods(deployv1.File_slipway_deploy_v1_deploy_proto.Services().Get(0)), methods(adminv1.File_slipway_admin_v1_admin_proto.Services().Get(0)),
		methods(accounts.Get(0)), methods(accounts.Get(1)),
		methods(identityv1.File_slipway_identity_v1_orgs_proto.Services().Get(0)), methods(identityv1.File_slipway_identity_v1_apikeys_proto.Services().Get(0)),
	)
	for _, method := range all {
		takes := func(kind identityv1.CredentialKind) int {
			guard := authn.NewGuard(authn.NewTokens(holding(&identityv1.Principal{OperatorId: "op", Kind: kind, Scopes: access.Scopes()}), time.Now))
			shown := bearer("Bearer t")
			if kind == apiKey {
				shown = authn.Presented{APIKey: []string{"t"}}
			}
			_, err := guard.Authorize(t.Context(), method, shown)
			return code(err)
		}
		got := [3]int{takes(accessToken), takes(session), takes(apiKey)}
		name := method[strings.LastIndexByte(method, '/')+1:]
		var want [3]int
		switch {
		case strings.Contains(method, "DeployService"):
			want = [3]int{200, 401, 401}
		case strings.Contains(method, "AdminService"), name == "GetMe",
			slices.Contains([]string{"Register", "SignUp", "Login", "VerifyEmail", "SendVerification", "ForgotPassword", "ResetPassword"}, name):
			want = [3]int{200, 200, 200}
		case strings.Contains(method, "AccountService"), name == "JoinOrg":
			want = [3]int{401, 200, 401}
		default:
			want = [3]int{200, 200, 401}
		}
		if got != want {
			t.Errorf("%s gives an access token, a session and a key %v, want %v", method, got, want)
		}
	}
}

func TestAKeyComesInItsOwnHeaderAndNothingElseDoes(t *testing.T) {
	t.Parallel()
	key := authn.NewGuard(authn.NewTokens(holding(&identityv1.Principal{OperatorId: "op", Kind: apiKey, Scopes: access.Scopes()}), time.Now))
	login := authn.NewGuard(authn.NewTokens(holding(&identityv1.Principal{OperatorId: "op", Kind: session, Scopes: access.Scopes()}), time.Now))
	for name, c := range map[string]struct {
		guard *authn.Guard
		shown authn.Presented
		want  int
	}{
		"a key in its header":      {key, authn.Presented{APIKey: []string{"t"}}, 200},
		"a key as bearer token":    {key, bearer("Bearer t"), 401},
		"a session in the key's":   {login, authn.Presented{APIKey: []string{"t"}}, 401},
		"both":                     {login, authn.Presented{APIKey: []string{"t"}, Authorization: []string{"Bearer t"}}, 401},
		"two keys":                 {key, authn.Presented{APIKey: []string{"t", "t"}}, 401},
		"an empty key":             {key, authn.Presented{APIKey: []string{" "}}, 401},
		"a huge key":               {key, authn.Presented{APIKey: []string{strings.Repeat("x", 5000)}}, 401},
		"an organization":          {key, authn.Presented{APIKey: []string{"t"}, Org: []string{"acme"}}, 200},
		"two organizations":        {key, authn.Presented{APIKey: []string{"t"}, Org: []string{"acme", "evil"}}, 400},
		"an organization that is*": {key, authn.Presented{APIKey: []string{"t"}, Org: []string{"evt.*"}}, 400},
	} {
		if _, err := c.guard.Authorize(t.Context(), identityv1.AccountService_GetMe_FullMethodName, c.shown); code(err) != c.want {
			t.Errorf("%s: %v, want %d", name, err, c.want)
		}
	}
}

func TestAnAnswerEndsWithTheCredentialAndWithTheEventThatEndsIt(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	principal := &identityv1.Principal{OperatorId: "op", OrgId: "acme", AppId: "app", CredentialId: "k1", Kind: apiKey, ExpiresAt: timestamppb.New(now.Add(500 * time.Millisecond))}
	id := holding(principal)
	tokens := authn.NewTokens(id, func() time.Time { return now })
	asks := func(why string, want int32) {
		t.Helper()
		if _, err := tokens.Authenticate(t.Context(), "t", ""); err != nil || id.asked.Load() != want {
			t.Errorf("%s: asked %d times, want %d, %v", why, id.asked.Load(), want, err)
		}
	}
	asks("first", 1)
	asks("again", 1)
	for i, of := range []subjects.Aggregate{
		subjects.Of("acme", subjects.APIKey, "k1"), subjects.Of("acme", subjects.Org, "acme"), subjects.Of("_", subjects.Operator, "op"), subjects.Of("acme", subjects.OAuthApp, "app"),
	} {
		tokens.Drop([]eventstore.Recorded{{Event: eventstore.Event{Aggregate: of}}})
		asks("after an event of "+of.String(), int32(i)+2)
	}
	tokens.Drop([]eventstore.Recorded{{Event: eventstore.Event{Aggregate: subjects.Of("evil", subjects.Org, "evil")}}})
	asks("after an event of another", 5)
	now = now.Add(500 * time.Millisecond)
	asks("when the credential has expired", 6)
	if _, err := tokens.Authenticate(t.Context(), "t", "other"); err != nil || id.asked.Load() != 7 {
		t.Errorf("for another organization it was not asked: %v", err)
	}
}

// An answer that was asked for before an event and comes after it is not kept.
func TestAnAnswerThatAnEventHasOvertakenIsNotKept(t *testing.T) {
	t.Parallel()
	var tokens *authn.Tokens
	id := &identity{}
	id.answer = func([]byte) (*identityv1.AuthenticateResponse, error) {
		tokens.Drop([]eventstore.Recorded{{Event: eventstore.Event{Aggregate: subjects.Of("_", subjects.Operator, "op")}}})
		return &identityv1.AuthenticateResponse{Principal: &identityv1.Principal{OperatorId: "op"}}, nil
	}
	tokens = authn.NewTokens(id, time.Now)
	for range 2 {
		if _, err := tokens.Authenticate(t.Context(), "t", ""); err != nil {
			t.Fatal(err)
		}
	}
	if id.asked.Load() != 2 || tokens.Remembered() != 0 {
		t.Errorf("asked %d times, %d remembered", id.asked.Load(), tokens.Remembered())
	}
}

func TestALongAnswerEndsWithTheAccessToIt(t *testing.T) {
	t.Parallel()
	var state atomic.Int32 // 0 good, 1 cannot be found out, 2 refused
	id := &identity{answer: func([]byte) (*identityv1.AuthenticateResponse, error) {
		switch state.Load() {
		case 1:
			return nil, status.Error(codes.Unavailable, "gone")
		case 2:
			return nil, problem.Unauthorized("no").GRPCStatus().Err()
		}
		return &identityv1.AuthenticateResponse{Principal: &identityv1.Principal{OperatorId: "op", Kind: accessToken, Scopes: access.Scopes()}}, nil
	}}
	guard := authn.NewGuard(authn.NewTokens(id, time.Now))
	ctx, stop := guard.Watch(t.Context(), deployv1.DeployService_FollowDeploymentEvents_FullMethodName, bearer("Bearer t"))
	defer stop()
	state.Store(1)
	for asked := id.asked.Load(); id.asked.Load() < asked+2; {
		select {
		case <-ctx.Done():
			t.Fatal("it ended while nobody could say")
		case <-time.After(10 * time.Millisecond):
		}
	}
	state.Store(2)
	select {
	case <-ctx.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("it goes on")
	}
	if code(context.Cause(ctx)) != 401 {
		t.Errorf("it ended because of %v", context.Cause(ctx))
	}
}

func TestTokensFollowTheLog(t *testing.T) {
	t.Parallel()
	store := memory.New()
	tokens := authn.NewTokens(holding(&identityv1.Principal{OperatorId: "op", OrgId: "acme"}), time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tokens.Follow(ctx, store) }()
	for deadline := time.Now().Add(10 * time.Second); ; {
		// Anew each time: it may not follow yet, and an answer holds for a second only.
		if _, err := tokens.Authenticate(t.Context(), "t", ""); err != nil {
			t.Fatal(err)
		}
		_, err := store.Record(t.Context(), eventstore.Event{
			Aggregate: subjects.Of("acme", subjects.Org, "acme"), ID: fmt.Sprint(time.Now().UnixNano()), Payload: &identityv1.MemberRemoved{OperatorId: "op"}, Time: time.Now(),
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
		if tokens.Remembered() == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no answer was dropped")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
