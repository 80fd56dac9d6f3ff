package authn_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	deployv1 "github.com/slipway-paas/slipway/gen/slipway/deploy/v1"
	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/access"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/gateway/authn"
)

type identity struct {
	asked  atomic.Int32
	answer func(hash []byte) (*identityv1.AuthenticateResponse, error)
}

func (i *identity) Authenticate(_ context.Context, req *identityv1.AuthenticateRequest, _ ...grpc.CallOption) (*identityv1.AuthenticateResponse, error) {
	i.asked.Add(1)
	return i.answer(req.GetTokenSha256())
}

func knows(token string, scopes ...string) *identity {
	return &identity{answer: func(hash []byte) (*identityv1.AuthenticateResponse, error) {
		if want := sha256.Sum256([]byte(token)); string(hash) != string(want[:]) {
			return nil, problem.Unauthorized("no").GRPCStatus().Err()
		}
		return &identityv1.AuthenticateResponse{Principal: &identityv1.Principal{OperatorId: "op", Kind: accessToken, Scopes: scopes}}, nil
	}}
}

const accessToken = identityv1.CredentialKind_CREDENTIAL_KIND_ACCESS_TOKEN

func bearer(values ...string) authn.Presented { return authn.Presented{Authorization: values} }

func code(err error) int {
	if err == nil {
		return 200
	}
	return problem.From(err).Status
}

// Every method that can be called must be in the table, with a scope.
func TestEveryMethodOfTheDeployDialectNeedsItsScope(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	with := authn.NewGuard(authn.NewTokens(knows("t", "deploy:manage"), time.Now))
	without := authn.NewGuard(authn.NewTokens(knows("t", "billing:read"), time.Now))
	service := deployv1.File_slipway_deploy_v1_deploy_proto.Services().ByName("DeployService")
	for i := range service.Methods().Len() {
		method := fmt.Sprintf("/%s/%s", service.FullName(), service.Methods().Get(i).Name())
		p, err := with.Authorize(ctx, method, bearer("Bearer t"))
		if err != nil || p.GetOperatorId() != "op" {
			t.Errorf("%s with the scope: %v", method, err)
		}
		if _, err := without.Authorize(ctx, method, bearer("Bearer t")); code(err) != 403 {
			t.Errorf("%s without the scope: %v, want 403", method, err)
		}
		if _, err := with.Authorize(ctx, method, authn.Presented{}); code(err) != 401 {
			t.Errorf("%s without a token: %v, want 401", method, err)
		}
	}
	if _, err := with.Authorize(ctx, "/slipway.deploy.v1.DeployService/New", bearer("Bearer t")); code(err) != 404 {
		t.Errorf("a method that is not in the table: %v, want 404", err)
	}
	if p, err := with.Authorize(ctx, "/grpc.health.v1.Health/Check", authn.Presented{}); p != nil || err != nil {
		t.Errorf("health: %v, %v", p, err)
	}
}

func TestAppsAreChangedWithEitherScope(t *testing.T) {
	t.Parallel()
	for scope, want := range map[string]int{access.AppsWrite: 200, access.DeployManage: 200, access.DeployRead: 403, access.Admin: 403} {
		guard := authn.NewGuard(authn.NewTokens(knows("t", scope), time.Now))
		if _, err := guard.Authorize(t.Context(), domainv1.DomainService_AddDomain_FullMethodName, bearer("Bearer t")); code(err) != want {
			t.Errorf("with %s: %v, want %d", scope, err, want)
		}
	}
}

func TestOnlyOneUsableHeaderLetsIn(t *testing.T) {
	t.Parallel()
	guard := authn.NewGuard(authn.NewTokens(knows("t", "deploy:manage"), time.Now))
	long := string(make([]byte, 5000))
	for want, headers := range map[int][][]string{
		200: {{"Bearer t"}, {"bearer t"}, {"BEARER  t "}},
		401: {nil, {""}, {"Bearer"}, {"Bearer "}, {"t"}, {"Basic t"}, {"Bearer t", "Bearer t"}, {"Bearer t2"}, {"Bearer " + long}},
	} {
		for _, h := range headers {
			if _, err := guard.Authorize(t.Context(), deployv1.DeployService_ListTiers_FullMethodName, bearer(h...)); code(err) != want {
				t.Errorf("%.40q: %v, want %d", h, err, want)
			}
		}
	}
}

func TestAGoodAnswerIsRememberedForASecondAndARefusalNever(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	id := knows("t", "deploy:manage")
	tokens := authn.NewTokens(id, func() time.Time { return now })
	ask := func(token string) error {
		_, err := tokens.Authenticate(t.Context(), token, "")
		return err
	}
	for range 3 {
		if err := ask("t"); err != nil {
			t.Fatal(err)
		}
	}
	if n := id.asked.Load(); n != 1 {
		t.Errorf("identity was asked %d times for one token", n)
	}
	now = now.Add(time.Second)
	if err := ask("t"); err != nil || id.asked.Load() != 2 {
		t.Errorf("after a second: %v, asked %d times, want again", err, id.asked.Load())
	}
	for range 2 {
		if err := ask("nope"); code(err) != 401 {
			t.Errorf("got %v, want 401", err)
		}
	}
	if n := id.asked.Load(); n != 4 {
		t.Errorf("identity was asked %d times: a refusal was remembered", n)
	}
}

func TestManyTokensAtOnceStayBounded(t *testing.T) {
	t.Parallel()
	tokens := authn.NewTokens(&identity{answer: func([]byte) (*identityv1.AuthenticateResponse, error) {
		return &identityv1.AuthenticateResponse{Principal: &identityv1.Principal{OperatorId: "op"}}, nil
	}}, time.Now)
	var callers sync.WaitGroup
	for worker := range 8 {
		callers.Go(func() {
			for i := range 1500 {
				if _, err := tokens.Authenticate(t.Context(), fmt.Sprint(worker, i), ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	callers.Wait()
	if n := tokens.Remembered(); n > 4096 {
		t.Errorf("%d answers are remembered", n)
	}
}

func TestAMissingIdentityIsNotARefusal(t *testing.T) {
	t.Parallel()
	cause := status.Error(codes.Unavailable, "gone")
	tokens := authn.NewTokens(&identity{answer: func([]byte) (*identityv1.AuthenticateResponse, error) { return nil, cause }}, time.Now)
	_, err := tokens.Authenticate(t.Context(), "t", "")
	if code(err) != 503 || !errors.Is(err, cause) {
		t.Errorf("got %v, want 503 that keeps its cause for the log", err)
	}
	nobody := authn.NewTokens(&identity{answer: func([]byte) (*identityv1.AuthenticateResponse, error) {
		return &identityv1.AuthenticateResponse{}, nil
	}}, time.Now)
	if _, err := nobody.Authenticate(t.Context(), "t", ""); code(err) != 401 {
		t.Errorf("an answer without a principal: %v, want 401", err)
	}
}
