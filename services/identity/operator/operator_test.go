package operator_test

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/decider/gwt"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/services/identity/credential"
	"github.com/slipway-paas/slipway/services/identity/operator"
)

var (
	first  = sha256.Sum256([]byte("first"))
	second = sha256.Sum256([]byte("second"))
	email  = sha256.Sum256([]byte("ada@example.com"))
)

func story(t *testing.T) *gwt.Story[operator.State, operator.Command] {
	return gwt.New(t, operator.Decider())
}

func bootstrapped() *identityv1.OperatorBootstrapped {
	return &identityv1.OperatorBootstrapped{
		OperatorId: "op", OrgId: "default", AppId: "app", TokenSha256: first[:], Scopes: []string{"deploy:manage"},
	}
}

func registered() *identityv1.OperatorRegistered {
	return &identityv1.OperatorRegistered{OperatorId: "op", PersonalOrgId: "org", EmailHash: email[:], Profile: []byte("p"), Password: []byte("h1")}
}

func unverified() *identityv1.OperatorRegistered {
	e := registered()
	e.VerifySha256 = first[:]
	return e
}

func replaced(hash [sha256.Size]byte) *identityv1.AccessTokenReplaced {
	return &identityv1.AccessTokenReplaced{TokenSha256: hash[:]}
}

func granted(scopes ...string) *identityv1.ScopesGranted {
	return &identityv1.ScopesGranted{Scopes: scopes}
}

func enrolled() *identityv1.TotpEnrolled { return &identityv1.TotpEnrolled{Secret: []byte("s")} }

func confirmed() *identityv1.TotpConfirmed {
	return &identityv1.TotpConfirmed{Step: 100, RecoverySha256: [][]byte{first[:], second[:]}}
}

func TestTheFirstOperator(t *testing.T) {
	t.Parallel()
	make1 := operator.Bootstrap{ID: "op", OrgID: "default", AppID: "app", TokenSHA256: first, Scopes: []string{"deploy:manage"}}
	story(t).When(make1).Then(bootstrapped()).
		When(make1).ThenErrorIs(operator.ErrExists).
		When(operator.ReplaceToken{TokenSHA256: second}).Then(replaced(second)).
		When(operator.ReplaceToken{}).ThenErrorIs(operator.ErrMalformed).
		When(operator.GrantScopes{Scopes: []string{"deploy:manage", "admin"}}).Then(granted("admin")).
		When(operator.GrantScopes{Scopes: []string{"admin"}}).ThenErrorIs(operator.ErrGranted)
	for name, c := range map[string]operator.Command{
		"a token of nobody":  operator.ReplaceToken{TokenSHA256: second},
		"scopes for nobody":  operator.GrantScopes{Scopes: []string{"admin"}},
		"a logout of nobody": operator.LogOut{},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t).When(c).ThenErrorIs(operator.ErrUnknown)
		})
	}
	story(t).When(operator.Bootstrap{OrgID: "default", AppID: "app", TokenSHA256: first}).ThenErrorIs(operator.ErrMalformed)
	story(t).When(nil).ThenErrorIs(operator.ErrMalformed)
}

func TestTheLastTokenHolds(t *testing.T) {
	t.Parallel()
	state := story(t).Given(bootstrapped(), replaced(second), granted("admin")).State()
	want := []credential.Credential{{
		Hash: second, Kind: credential.AccessToken, Operator: "op", Org: "default", App: "app", Scopes: []string{"deploy:manage", "admin"},
	}}
	if diff := cmp.Diff(want, state.Credentials()); diff != "" || !state.Admin {
		t.Error(diff, state.Admin)
	}
	for _, other := range []proto.Message{
		&emptypb.Empty{}, &identityv1.OperatorBootstrapped{OperatorId: "op", TokenSha256: []byte("short")}, bootstrapped(), registered(),
	} {
		if again := operator.Evolve(state, recorded(other)); !cmp.Equal(again, state) {
			t.Errorf("%T changed the operator", other)
		}
	}
}

func TestAnAccountIsMadeOnceAndMayProveItsAddress(t *testing.T) {
	t.Parallel()
	make1 := operator.Register{ID: "op", OrgID: "org", EmailHash: email, Profile: []byte("p"), Password: []byte("h1")}
	story(t).When(make1).Then(registered()).
		When(make1).ThenErrorIs(operator.ErrExists).
		When(operator.VerifyEmail{VerifySHA256: first}).ThenErrorIs(operator.ErrCode).
		When(operator.SendVerification{VerifySHA256: first}).ThenErrorIs(operator.ErrCode)
	story(t).When(operator.Register{ID: "op", OrgID: "org", Profile: []byte("p"), Password: []byte("h")}).ThenErrorIs(operator.ErrMalformed)

	make1.VerifySHA256 = first
	story(t).When(make1).Then(unverified()).
		When(operator.VerifyEmail{VerifySHA256: second}).ThenErrorIs(operator.ErrCode).
		When(operator.SendVerification{VerifySHA256: second}).Then(&identityv1.EmailVerificationSent{VerifySha256: second[:]}).
		When(operator.VerifyEmail{VerifySHA256: first}).ThenErrorIs(operator.ErrCode).
		At(gwt.Start().Add(25 * time.Hour)).When(operator.VerifyEmail{VerifySHA256: second}).ThenErrorIs(operator.ErrCode).
		At(gwt.Start().Add(time.Hour)).When(operator.VerifyEmail{VerifySHA256: second}).Then(&identityv1.EmailVerified{}).
		When(operator.VerifyEmail{VerifySHA256: second}).ThenErrorIs(operator.ErrCode)
}

func TestWhatWasGivenOutBeforeEnds(t *testing.T) {
	t.Parallel()
	bound := func(b credential.Bond, epoch uint32) credential.Credential {
		return credential.Credential{Bond: b, Epoch: epoch}
	}
	before := story(t).Given(registered()).State()
	loggedOut := story(t).Given(registered(), &identityv1.LoggedOut{}).State()
	changed := story(t).Given(registered(), &identityv1.PasswordChanged{Password: []byte("h2")}).State()
	for name, c := range map[string]struct {
		state operator.State
		c     credential.Credential
		holds bool
	}{
		"a session":                             {before, bound(credential.ToLogin, 0), true},
		"a session after a logout":              {loggedOut, bound(credential.ToLogin, 0), false},
		"a session of after the logout":         {loggedOut, bound(credential.ToLogin, 1), true},
		"a token after a logout":                {loggedOut, bound(credential.ToPassword, 0), true},
		"a token after a change of password":    {changed, bound(credential.ToPassword, 0), false},
		"a session after a change of password":  {changed, bound(credential.ToLogin, 0), false},
		"a session of after the change":         {changed, bound(credential.ToLogin, 1), true},
		"a free one after a change of password": {changed, bound(credential.Free, 0), true},
	} {
		if c.state.Holds(c.c) != c.holds {
			t.Errorf("%s: holds is %v", name, !c.holds)
		}
	}
}

func TestAPasswordThatChangedMeanwhileIsNotChangedAgain(t *testing.T) {
	t.Parallel()
	story(t).Given(registered()).
		When(operator.ChangePassword{Password: []byte("h2")}).Then(&identityv1.PasswordChanged{Password: []byte("h2")}).
		When(operator.ChangePassword{Password: []byte("h3")}).ThenErrorIs(operator.ErrStale).
		When(operator.Rehash{Password: []byte("h1")}).ThenErrorIs(operator.ErrStale).
		When(operator.Rehash{Password: []byte("h2'"), Epoch: 1}).Then(&identityv1.PasswordRehashed{Password: []byte("h2'")}).
		When(operator.ChangePassword{Epoch: 1}).ThenErrorIs(operator.ErrMalformed)
	story(t).Given(bootstrapped()).When(operator.ChangePassword{Password: []byte("h")}).ThenErrorIs(operator.ErrMalformed)
}

func TestAMailedCodeSetsAnotherPasswordOnceAndWithinTheHour(t *testing.T) {
	t.Parallel()
	reset := func(code credential.Hash) operator.ResetPassword {
		return operator.ResetPassword{SHA256: code, Password: []byte("h2")}
	}
	sent := func(code credential.Hash) *identityv1.PasswordResetSent {
		return &identityv1.PasswordResetSent{ResetSha256: code[:]}
	}
	story(t).Given(registered()).
		When(reset(first)).ThenErrorIs(operator.ErrCode).
		When(reset(credential.Hash{})).ThenErrorIs(operator.ErrCode).
		When(operator.SendReset{SHA256: first}).Then(sent(first)).
		When(operator.SendReset{SHA256: second}).Then(sent(second)).
		When(reset(first)).ThenErrorIs(operator.ErrCode).
		When(operator.ResetPassword{SHA256: second}).ThenErrorIs(operator.ErrMalformed).
		When(reset(second)).Then(&identityv1.PasswordChanged{Password: []byte("h2")}).
		When(reset(second)).ThenErrorIs(operator.ErrCode)
	story(t).Given(registered(), sent(first)).
		At(gwt.Start().Add(61 * time.Minute)).When(reset(first)).ThenErrorIs(operator.ErrCode)
	// A code mailed before the password changed is no good after.
	story(t).Given(registered(), sent(first), &identityv1.PasswordChanged{Password: []byte("h2")}).
		When(reset(first)).ThenErrorIs(operator.ErrCode)
	story(t).Given(unverified()).When(operator.SendReset{SHA256: first}).ThenErrorIs(operator.ErrMalformed)
	story(t).Given(bootstrapped()).When(operator.SendReset{SHA256: first}).ThenErrorIs(operator.ErrMalformed)
}

func TestADeletedAccountIsNoneEverAgain(t *testing.T) {
	t.Parallel()
	make1 := operator.Register{ID: "op", OrgID: "org", EmailHash: email, Profile: []byte("p"), Password: []byte("h1")}
	gone := story(t).Given(registered()).When(operator.Delete{}).Then(&identityv1.AccountDeleted{}).
		When(operator.Delete{}).ThenErrorIs(operator.ErrUnknown).
		When(operator.ChangePassword{Password: []byte("h2")}).ThenErrorIs(operator.ErrUnknown).
		When(make1).ThenErrorIs(operator.ErrExists)
	if diff := cmp.Diff(operator.State{ID: "op", Deleted: true}, gone.State()); diff != "" {
		t.Error(diff)
	}
	if again := operator.Evolve(gone.State(), recorded(registered())); again.Exists() {
		t.Error("it came back")
	}
	story(t).Given(bootstrapped()).When(operator.Delete{}).ThenErrorIs(operator.ErrMalformed)
}

func TestASecondFactorCountsOnceConfirmedAndNoCodeTwice(t *testing.T) {
	t.Parallel()
	story(t).Given(registered()).
		When(operator.ConfirmTotp{Recovery: []credential.Hash{first}}).ThenErrorIs(operator.ErrSecondFactor).
		When(operator.UseTotp{Step: 1}).ThenErrorIs(operator.ErrSecondFactor).
		When(operator.DisableTotp{}).ThenErrorIs(operator.ErrSecondFactor).
		When(operator.EnrollTotp{}).ThenErrorIs(operator.ErrMalformed).
		When(operator.EnrollTotp{Secret: []byte("s")}).Then(enrolled()).
		When(operator.ConfirmTotp{Step: 100, Recovery: []credential.Hash{first, second}}).Then(confirmed()).
		When(operator.EnrollTotp{Secret: []byte("other")}).ThenErrorIs(operator.ErrSecondFactor).
		When(operator.UseTotp{Step: 100}).ThenErrorIs(operator.ErrCode).
		When(operator.UseTotp{Step: 101}).Then(&identityv1.TotpUsed{Step: 101}).
		When(operator.UseTotp{Step: 101}).ThenErrorIs(operator.ErrCode).
		When(operator.UseRecovery{SHA256: first}).Then(&identityv1.RecoveryCodeUsed{Sha256: first[:]}).
		When(operator.UseRecovery{SHA256: first}).ThenErrorIs(operator.ErrCode).
		When(operator.DisableTotp{}).Then(&identityv1.TotpDisabled{}).
		When(operator.UseRecovery{SHA256: second}).ThenErrorIs(operator.ErrSecondFactor)
}

func recorded(m proto.Message) eventstore.Recorded {
	return eventstore.Recorded{Event: eventstore.Event{Payload: m, Time: gwt.Start().Add(time.Hour)}}
}

// A new event of the schema needs a fold and a line in this test.
func TestEveryEventOfTheSchemaHasAFold(t *testing.T) {
	t.Parallel()
	given := func(events ...proto.Message) operator.State { return story(t).Given(events...).State() }
	samples := map[string]struct {
		before operator.State
		event  proto.Message
	}{
		"OperatorBootstrapped":  {operator.State{}, bootstrapped()},
		"AccessTokenReplaced":   {given(bootstrapped()), replaced(second)},
		"ScopesGranted":         {given(bootstrapped()), granted("admin")},
		"OperatorRegistered":    {operator.State{}, registered()},
		"EmailVerificationSent": {given(unverified()), &identityv1.EmailVerificationSent{VerifySha256: second[:]}},
		"EmailVerified":         {given(unverified()), &identityv1.EmailVerified{}},
		"PasswordChanged":       {given(registered()), &identityv1.PasswordChanged{Password: []byte("h2")}},
		"PasswordResetSent":     {given(registered()), &identityv1.PasswordResetSent{ResetSha256: second[:]}},
		"PasswordRehashed":      {given(registered()), &identityv1.PasswordRehashed{Password: []byte("h2")}},
		"AccountDeleted":        {given(registered()), &identityv1.AccountDeleted{}},
		"LoggedOut":             {given(registered()), &identityv1.LoggedOut{}},
		"TotpEnrolled":          {given(registered()), enrolled()},
		"TotpConfirmed":         {given(registered(), enrolled()), confirmed()},
		"TotpUsed":              {given(registered(), enrolled(), confirmed()), &identityv1.TotpUsed{Step: 101}},
		"RecoveryCodeUsed":      {given(registered(), enrolled(), confirmed()), &identityv1.RecoveryCodeUsed{Sha256: first[:]}},
		"TotpDisabled":          {given(registered(), enrolled(), confirmed()), &identityv1.TotpDisabled{}},
	}
	messages := identityv1.File_slipway_identity_v1_events_proto.Messages()
	for i := range messages.Len() {
		name := string(messages.Get(i).Name())
		sample, ok := samples[name]
		if !ok || cmp.Equal(operator.Evolve(sample.before, recorded(sample.event)), sample.before) {
			t.Errorf("%s has no fold", name)
		}
	}
}
