package device_test

import (
	"crypto/sha256"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/decider/gwt"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/identity/device"
)

var (
	deviceCode = sha256.Sum256([]byte("device code"))
	userCode   = sha256.Sum256([]byte("BCDF-GHJK"))
)

func issued() *identityv1.DeviceCodeIssued {
	return &identityv1.DeviceCodeIssued{
		DeviceId: "d1", ClientId: "slipway-cli", ClientName: "slipway", Scopes: []string{"deploy:manage", "admin"},
		DeviceCodeSha256: deviceCode[:], UserCodeSha256: userCode[:], ExpiresAt: timestamppb.New(gwt.Start().Add(device.For)),
	}
}

func code(err error) string {
	if err == nil {
		return ""
	}
	return problem.From(err).Code
}

func TestADeviceWaitsUntilAPersonDecides(t *testing.T) {
	t.Parallel()
	start := device.Start{
		ID: "d1", ClientID: "slipway-cli", ClientName: "slipway", Scopes: []string{"admin", "deploy:manage"},
		DeviceCode: deviceCode, UserCode: userCode,
	}
	story := gwt.New(t, device.Decider()).When(start).Then(issued())
	soon := gwt.Start().Add(time.Minute)
	if got := code(story.State().Redeemable("slipway-cli", deviceCode, soon)); got != device.CodePending {
		t.Errorf("before the decision: %q", got)
	}
	story.When(device.Approve{OperatorID: "op", OrgID: "acme", Scopes: []string{"billing:read"}}).ThenError(problem.CodeForbidden)
	story.When(device.Approve{OperatorID: "op", OrgID: "acme"}).ThenError(problem.CodeForbidden)
	approved := story.When(device.Approve{OperatorID: "op", OrgID: "acme", Scopes: []string{"deploy:manage"}}).
		Then(&identityv1.DeviceApproved{OperatorId: "op", OrgId: "acme", Scopes: []string{"deploy:manage"}})
	for what, c := range map[string]struct {
		client string
		code   device.Hash
		at     time.Time
		want   string
	}{
		"its own code":        {"slipway-cli", deviceCode, soon, ""},
		"another client":      {"other", deviceCode, soon, "invalid_grant"},
		"the user's code":     {"slipway-cli", userCode, soon, "invalid_grant"},
		"its code, but later": {"slipway-cli", deviceCode, gwt.Start().Add(device.For), device.CodeExpired},
	} {
		if got := code(approved.State().Redeemable(c.client, c.code, c.at)); got != c.want {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
	// Nobody decides twice.
	approved.When(device.Deny{OperatorID: "op"}).ThenError(problem.CodeNotFound)
	waiting := func() *gwt.Story[device.State, device.Command] { return gwt.New(t, device.Decider()).Given(issued()) }
	denied := waiting().When(device.Deny{OperatorID: "op"}).Then(&identityv1.DeviceDenied{OperatorId: "op"})
	if got := code(denied.State().Redeemable("slipway-cli", deviceCode, soon)); got != device.CodeDenied {
		t.Errorf("after a refusal: %q", got)
	}
	waiting().At(gwt.Start().Add(device.For)).When(device.Approve{OperatorID: "op", OrgID: "acme", Scopes: []string{"deploy:manage"}}).ThenError(problem.CodeNotFound)
}
