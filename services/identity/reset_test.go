package identity_test

import (
	"strings"
	"testing"
	"time"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/identity"
	"github.com/slipway-paas/slipway/services/identity/mail/mailtest"
)

func (w *world) forgot(name string) {
	w.t.Helper()
	res, err := w.accounts.ForgotPassword(w.t.Context(), &identityv1.ForgotPasswordRequest{Email: name + "@example.com"})
	if err != nil || !strings.HasPrefix(res.GetMessage(), "If the address") {
		w.t.Errorf("%s: %v, %v", name, res, err)
	}
}

func (w *world) reset(name, code, password string) error {
	w.t.Helper()
	_, err := w.accounts.ResetPassword(w.t.Context(), &identityv1.ResetPasswordRequest{Email: name + "@example.com", Code: code, NewPassword: password})
	return err
}

func TestWhoForgotThePasswordSetsAnotherByMail(t *testing.T) {
	t.Parallel()
	server := mailtest.Start(t)
	w := begin(t, identity.Config{SMTP: server.Config()})
	w.register("ada")
	if err := w.verify("ada", codeInMail.FindString(server.Next(t).Data)); err != nil {
		t.Fatal(err)
	}
	token, answered, _ := w.login("ada", goodPassword, "")
	if answered != 200 {
		t.Fatalf("login: %d", answered)
	}
	w.forgot("nobody")
	w.forgot("ada")
	arrived := server.Next(t)
	code := codeInMail.FindString(arrived.Data)
	if arrived.To != "ada@example.com" || code == "" {
		t.Fatalf("arrived: %+v", arrived)
	}
	const another = "another good password"
	a, b := w.reset("ada", "WRONG", another), w.reset("nobody", code, another)
	if status(a) != 422 || problem.From(a).Message != problem.From(b).Message {
		t.Errorf("wrong codes: %v and %v", a, b)
	}
	if err := w.reset("ada", code, "short"); status(err) != 422 {
		t.Errorf("a short password: %v", err)
	}
	if err := w.reset("ada", " "+strings.ToLower(code), another); err != nil {
		t.Fatal(err)
	}
	if err := w.reset("ada", code, another+"!"); status(err) != 422 {
		t.Errorf("the code again: %v", err)
	}
	if _, answered, _ := w.login("ada", goodPassword, ""); answered != 401 {
		t.Errorf("the old password: %d", answered)
	}
	if _, answered, _ := w.login("ada", another, ""); answered != 200 {
		t.Errorf("the new password: %d", answered)
	}
	if _, code := w.who(token, ""); code != 401 {
		t.Error("a session from before goes on")
	}
}

func TestACodeForAPasswordIsMailedNotTooOftenAndEndsInAnHour(t *testing.T) {
	t.Parallel()
	server := mailtest.Start(t)
	w := begin(t, identity.Config{SMTP: server.Config()})
	w.register("ada")
	proof := codeInMail.FindString(server.Next(t).Data)
	w.forgot("ada") // whose address is not proved
	if err := w.verify("ada", proof); err != nil {
		t.Fatal(err)
	}
	w.forgot("ada")
	first := codeInMail.FindString(server.Next(t).Data)
	w.forgot("ada") // too soon
	w.clock.Pass(2 * time.Minute)
	w.forgot("ada")
	second := codeInMail.FindString(server.Next(t).Data)
	if second == "" || second == first || server.Waiting() != 0 {
		t.Fatalf("codes %q and %q", first, second)
	}
	if err := w.reset("ada", first, "another good password"); status(err) != 422 {
		t.Errorf("the first code: %v", err)
	}
	w.clock.Pass(61 * time.Minute)
	if err := w.reset("ada", second, "another good password"); status(err) != 422 {
		t.Errorf("the second code an hour later: %v", err)
	}
}

func TestWithoutMailNoPasswordIsReset(t *testing.T) {
	t.Parallel()
	w := begin(t, identity.Config{})
	w.register("ada")
	for _, name := range []string{"ada", "nobody"} {
		_, err := w.accounts.ForgotPassword(t.Context(), &identityv1.ForgotPasswordRequest{Email: name + "@example.com"})
		if problem.From(err).Code != problem.CodeInvalidState {
			t.Errorf("%s: %v", name, err)
		}
	}
}
