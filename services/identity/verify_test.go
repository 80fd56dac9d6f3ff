package identity_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/identity"
	"github.com/slipway-paas/slipway/services/identity/mail/mailtest"
)

var codeInMail = regexp.MustCompile(`[A-Z2-7]{20}`)

func (w *world) verify(name, code string) error {
	w.t.Helper()
	_, err := w.accounts.VerifyEmail(w.t.Context(), &identityv1.VerifyEmailRequest{Email: name + "@example.com", Code: code})
	return err
}

func TestAnAddressIsProvedWhereMailsCanBeSent(t *testing.T) {
	t.Parallel()
	server := mailtest.Start(t)
	w := begin(t, identity.Config{SMTP: server.Config()})
	if _, token := w.register("ada"); token != "" {
		t.Error("an account is logged in before its address is proved")
	}
	arrived := server.Next(t)
	code := codeInMail.FindString(arrived.Data)
	if arrived.To != "ada@example.com" || code == "" {
		t.Fatalf("arrived: %+v", arrived)
	}
	if _, status, code := w.login("ada", goodPassword, ""); status != 403 || code != "email_unverified" {
		t.Errorf("a login before: %d %s", status, code)
	}
	if _, status, code := w.login("ada", "wrong password", ""); status != 401 || code != problem.CodeUnauthorized {
		t.Errorf("a wrong password tells of it: %d %s", status, code)
	}
	if a, b := w.verify("ada", "WRONG"), w.verify("nobody", code); status(a) != 422 || status(b) != 422 || problem.From(a).Message != problem.From(b).Message {
		t.Errorf("wrong codes: %v and %v", a, b)
	}
	if err := w.verify("ada", " "+strings.ToLower(code)); err != nil {
		t.Fatal(err)
	}
	if err := w.verify("ada", code); status(err) != 422 {
		t.Errorf("the code again: %v", err)
	}
	if _, status, _ := w.login("ada", goodPassword, ""); status != 200 {
		t.Errorf("a login after: %d", status)
	}
}

func TestRegisteringAnAddressThatHasAnAccountTellsItsReaderAlone(t *testing.T) {
	t.Parallel()
	server := mailtest.Start(t)
	w := begin(t, identity.Config{SMTP: server.Config()})
	// The first is admin, which the answer says.
	w.register("first")
	server.Next(t)
	fresh, _ := w.register("ada")
	server.Next(t)
	again, token := w.register("ada")
	if token != "" || again.Id == fresh.Id {
		t.Errorf("registered again as %v", again)
	}
	again.Id, again.CreatedAt, again.UpdatedAt = fresh.Id, fresh.CreatedAt, fresh.UpdatedAt
	if !proto.Equal(again, fresh) {
		t.Errorf("the answers differ: %v and %v", fresh, again)
	}
	if arrived := server.Next(t); arrived.To != "ada@example.com" || codeInMail.MatchString(arrived.Data) || !strings.Contains(arrived.Data, "account already") {
		t.Errorf("arrived: %+v", arrived)
	}
}

func TestAnotherCodeIsMailedToWhomItConcernsAndNotTooOften(t *testing.T) {
	t.Parallel()
	server := mailtest.Start(t)
	w := begin(t, identity.Config{SMTP: server.Config()})
	w.register("ada")
	first := codeInMail.FindString(server.Next(t).Data)
	send := func(name string) {
		t.Helper()
		res, err := w.accounts.SendVerification(t.Context(), &identityv1.SendVerificationRequest{Email: name + "@example.com"})
		if err != nil || !strings.HasPrefix(res.GetMessage(), "If the address") {
			t.Errorf("%s: %v, %v", name, res, err)
		}
	}
	send("nobody")
	send("ada") // too soon
	w.clock.Pass(2 * time.Minute)
	send("ada")
	arrived := server.Next(t)
	second := codeInMail.FindString(arrived.Data)
	if arrived.To != "ada@example.com" || second == "" || second == first || server.Waiting() != 0 {
		t.Fatalf("arrived: %+v", arrived)
	}
	if err := w.verify("ada", first); status(err) != 422 {
		t.Errorf("the first code: %v", err)
	}
	w.clock.Pass(25 * time.Hour)
	if err := w.verify("ada", second); status(err) != 422 {
		t.Errorf("the second code a day later: %v", err)
	}
	send("ada")
	if err := w.verify("ada", codeInMail.FindString(server.Next(t).Data)); err != nil {
		t.Error(err)
	}
}
