package subscriptions_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"google.golang.org/protobuf/proto"

	claimv1 "github.com/slipway-paas/slipway/gen/slipway/claim/v1"
	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/ca"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/subscriptions"
)

func TestAPlainClientHearsItsOrganizationsEventsLive(t *testing.T) {
	t.Parallel()
	h := begin(t)
	in := h.connect(h.credential("acme", "ada", "c1"))
	heard := make(chan *nats.Msg, 10)
	for _, subject := range []string{"evt.acme.>", "evt.acme.deployment.*.DeploymentRunning"} {
		if _, err := in.ChanSubscribe(subject, heard); err != nil {
			t.Fatal(err)
		}
	}
	if err := in.Flush(); err != nil {
		t.Fatal(err)
	}
	// Interest travels to the log by itself: what is heard first says that it has come.
	var first *nats.Msg
	until(t, "an event is heard", func() bool {
		h.running("acme", "d1")
		h.running("other", "d2")
		select {
		case first = <-heard:
			return true
		case <-time.After(100 * time.Millisecond):
			return false
		}
	})
	event := &deploymentv1.DeploymentRunning{}
	if err := proto.Unmarshal(first.Data, event); err != nil || event.GetReleaseId() != "r-of-acme" {
		t.Errorf("the payload is %v, %v", event, err)
	}
	if first.Subject != "evt.acme.deployment.d1.DeploymentRunning" || first.Header.Get("Nats-Sequence") == "" || first.Header.Get("ce-type") == "" {
		t.Errorf("heard %s with %v", first.Subject, first.Header)
	}
	for len(heard) > 0 {
		if m := <-heard; !strings.HasPrefix(m.Subject, "evt.acme.") {
			t.Errorf("heard %s", m.Subject)
		}
	}
}

// What is published and refused never happened; only what is in the log is heard.
func TestWhatTheLogRefusedIsNotHeard(t *testing.T) {
	t.Parallel()
	h := begin(t)
	in := h.connect(h.credential("acme", "ada", "c1"))
	heard, err := in.SubscribeSync("evt.acme.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Flush(); err != nil {
		t.Fatal(err)
	}
	until(t, "an event is heard", func() bool {
		h.running("acme", "d1")
		_, err := heard.NextMsg(100 * time.Millisecond)
		return err == nil
	})
	for {
		if _, err := heard.NextMsg(300 * time.Millisecond); err != nil {
			break
		}
	}
	stale := eventstore.Expected{Event: h.event("acme", subjects.Deployment, "d1", &deploymentv1.StopRequested{}), LastSequence: 1}
	if _, err := h.store.Append(t.Context(), stale); !errors.Is(err, eventstore.ErrConflict) {
		t.Fatalf("a stale decision: %v", err)
	}
	// A batch with a claim: its events of the tenant are heard, the platform's are not.
	if _, err := h.store.AppendBatch(t.Context(), []eventstore.Expected{
		{Event: h.event(subjects.Platform, subjects.Claim, "subdomain-1", &claimv1.ClaimTaken{Kind: "subdomain", Name: "n"})},
		{Event: h.event("acme", subjects.Deployment, "d9", &deploymentv1.DeploymentRequested{})},
	}); err != nil {
		t.Fatal(err)
	}
	m, err := heard.NextMsg(patience)
	if err != nil || m.Subject != "evt.acme.deployment.d9.DeploymentRequested" {
		t.Fatalf("heard %v, %v", m, err)
	}
}

func TestThePastIsReadAndResumedWhereItWasAcknowledged(t *testing.T) {
	t.Parallel()
	h := begin(t)
	for range 3 {
		h.running("acme", "d1")
		h.running("other", "d2")
	}
	made := h.credential("acme", "ada", "c1")
	first := h.connect(made)
	// The organization itself, its three events and the credential.
	got := read(t, first.consumer(t, "c1"), 2)
	if got[0].Subject() != "evt.acme.org.acme.OrgCreated" || got[1].Subject() != "evt.acme.deployment.d1.DeploymentRunning" {
		t.Errorf("the past begins with %s, %s", got[0].Subject(), got[1].Subject())
	}
	first.Close()

	second := h.connect(made)
	rest := read(t, second.consumer(t, "c1"), 3)
	last := uint64(0)
	for _, m := range slices.Concat(got, rest) {
		meta, err := m.Metadata()
		if err != nil || meta.Sequence.Stream <= last || !strings.HasPrefix(m.Subject(), "evt.acme.") {
			t.Errorf("%s has %v after %d, %v", m.Subject(), meta, last, err)
			continue
		}
		last = meta.Sequence.Stream
	}
	if rest[2].Subject() != "evt.acme.eventcredential.c1.EventCredentialCreated" {
		t.Errorf("the past ends with %s", rest[2].Subject())
	}

	// A door that is opened anew has lost nothing.
	h.stop()
	h.start()
	h.running("acme", "d3")
	if again := read(t, h.connect(made).consumer(t, "c1"), 1); again[0].Subject() != "evt.acme.deployment.d3.DeploymentRunning" {
		t.Errorf("resumed with %s", again[0].Subject())
	}
}

func TestReadingBeginsAfterTheSequenceThatWasAskedFor(t *testing.T) {
	t.Parallel()
	h := begin(t)
	h.running("acme", "d1")
	after := h.running("acme", "d2")
	made := h.credential("acme", "ada", "c1", func(e *identityv1.EventCredentialCreated) { e.AfterSequence = after })
	if got := read(t, h.connect(made).consumer(t, "c1"), 1); got[0].Subject() != "evt.acme.eventcredential.c1.EventCredentialCreated" {
		t.Errorf("began with %s", got[0].Subject())
	}
}

// ended waits at most the second that is promised.
func ended(t *testing.T, in *client, since time.Time, why string) {
	t.Helper()
	for in.IsConnected() {
		if time.Since(since) > time.Second {
			t.Fatalf("%s: still connected after a second", why)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestAnEndedCredentialsConnectionsEndWithinASecond(t *testing.T) {
	t.Parallel()
	h := begin(t)
	h.occur("acme", subjects.Org, "acme", &identityv1.MemberJoined{OperatorId: "bob", Role: "admin"})
	revoked, orphan, stays := h.credential("acme", "ada", "c1"), h.credential("acme", "bob", "c2"), h.credential("acme", "ada", "c3")
	one, two, three, kept := h.connect(revoked), h.connect(revoked), h.connect(orphan), h.connect(stays)
	one.consumer(t, "c1")

	since := time.Now()
	h.occur("acme", subjects.EventCredential, "c1", &identityv1.EventCredentialRevoked{})
	ended(t, one, since, "revoked")
	ended(t, two, since, "revoked")
	if _, err := h.dial(revoked); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("a revoked credential connects: %v", err)
	}
	until(t, "its consumer is gone", func() bool {
		_, err := h.js.Consumer(t.Context(), subjects.StreamEvents, subjects.SubscriptionConsumer("c1"))
		return err != nil
	})

	since = time.Now()
	h.occur("acme", subjects.Org, "acme", &identityv1.MemberRemoved{OperatorId: "bob"})
	ended(t, three, since, "the maker was removed")
	h.occur("acme", subjects.Org, "acme", &identityv1.MemberJoined{OperatorId: "bob", Role: "admin"})
	if _, err := h.dial(orphan); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("what a removed member made connects: %v", err)
	}

	soon := h.credential("acme", "ada", "c4", expiring(time.Now().Add(2*time.Second)))
	short := h.connect(soon)
	until(t, "it expires", func() bool { return !short.IsConnected() })
	if _, err := h.dial(soon); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("an expired credential connects: %v", err)
	}
	if !kept.IsConnected() {
		t.Error("another credential's connection ended too")
	}

	since = time.Now()
	h.occur("acme", subjects.Org, "acme", &identityv1.OrgDeleted{DeletedBy: "ada"})
	ended(t, kept, since, "the organization was deleted")
	if _, err := h.dial(stays); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("a deleted organization's credential connects: %v", err)
	}
}

func TestOnlyWhoHasTheSeedComesIn(t *testing.T) {
	t.Parallel()
	h := begin(t)
	made := h.credential("acme", "ada", "c1")
	h.connect(made)
	public, err := made.pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	var once []byte
	for why, options := range map[string][]nats.Option{
		"nothing":             nil,
		"a password":          {nats.UserInfo("c1", public)},
		"a token":             {nats.Token(public)},
		"an unknown key":      {nats.Nkey(mustPublic(t, stranger), stranger.Sign)},
		"another's signature": {nats.Nkey(public, stranger.Sign)},
		"no signature":        {nats.Nkey(public, func([]byte) ([]byte, error) { return nil, nil })},
		"an older signature": {nats.Nkey(public, func(nonce []byte) ([]byte, error) {
			if once == nil {
				once, err = made.pair.Sign(append([]byte("x"), nonce[1:]...))
			}
			return once, err
		})},
	} {
		nc, err := nats.Connect("nats://"+h.service.Address(), append(options, nats.NoReconnect())...)
		if err == nil {
			nc.Close()
			t.Errorf("%s lets in", why)
		} else if !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("%s: %v", why, err)
		}
	}
	// Whoever writes another organization's name into its events gets nothing by it.
	forged := h.credential("acme", "ada", "c5", func(e *identityv1.EventCredentialCreated) { e.OrgId = "other" })
	known := h.credential("acme", "ada", "c6")
	h.connect(known)
	if _, err := h.dial(forged); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("a credential for another organization connects: %v", err)
	}
}

func mustPublic(t *testing.T, pair nkeys.KeyPair) string {
	t.Helper()
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return public
}

func TestOneCredentialTakesOnlySoMuch(t *testing.T) {
	t.Parallel()
	h := begin(t)
	made := h.credential("acme", "ada", "c1")
	in := h.connect(made)
	for range 3 {
		h.connect(made)
	}
	if _, err := h.dial(made); err == nil {
		t.Error("a fifth connection is let in")
	}
	neighbour := h.connect(h.credential("acme", "ada", "c2"))
	for range 70 {
		if _, err := in.SubscribeSync("evt.acme.>"); err != nil {
			t.Fatal(err)
		}
	}
	if err := refusal(t, in); !strings.Contains(err, "maximum subscriptions") {
		t.Errorf("a 65th subscription: %s", err)
	}
	if in.MaxPayload() > 16<<10 {
		t.Errorf("it may send %d bytes", in.MaxPayload())
	}
	// Questions that nobody answers end the connection that asks them.
	other := h.connect(h.credential("acme", "ada", "c3"))
	other.consumer(t, "c3")
	if err := h.js.DeleteConsumer(t.Context(), subjects.StreamEvents, subjects.SubscriptionConsumer("c3")); err != nil {
		t.Fatal(err)
	}
	if _, err := other.SubscribeSync("_INBOX.c3"); err != nil {
		t.Fatal(err)
	}
	next := subjects.ClientsConsumerAPI(subjects.SubscriptionConsumer("c3")).Next
	until(t, "who asks too much is cut off", func() bool {
		for range 5000 {
			if other.PublishRequest(next, "_INBOX.c3", []byte(`{"batch":1,"expires":50000000000}`)) != nil {
				return true
			}
		}
		return other.Flush() != nil
	})
	if !neighbour.IsConnected() || neighbour.Flush() != nil {
		t.Error("the neighbour's connection ended")
	}
}

// refusal is what the server said no to last.
func refusal(t *testing.T, in *client) string {
	t.Helper()
	select {
	case err := <-in.refused:
		return strings.ToLower(err.Error())
	case <-time.After(patience):
		t.Fatal("nothing was refused")
		return ""
	}
}

func TestTheDoorIsNotOpenedToOthersInPlainText(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]subscriptions.Config{
		"open to other machines": {Listen: "0.0.0.0:4223"},
		"one needs the other":    {Listen: "127.0.0.1:4223", TLSCert: "x.pem"},
		"must be host:port":      {Listen: "4223"},
		"no such file":           {Listen: ":4223", TLSCert: "/none.pem", TLSKey: "/none.key"},
		"tls://host:port":        {Listen: "127.0.0.1:4223", Leaf: "somewhere"},
	} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", c, err, want)
		}
	}
	if err := (subscriptions.Config{}).Validate(); err != nil {
		t.Errorf("turned off: %v", err)
	}
}

func TestBeyondTheMachineItSpeaksTLSAlone(t *testing.T) {
	t.Parallel()
	h := begin(t)
	h.stop()
	authority, err := ca.Open(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := authority.Issue("events", time.Hour, time.Now()); err != nil {
		t.Fatal(err)
	}
	h.config.Listen = "0.0.0.0:0"
	h.config.TLSCert, h.config.TLSKey = authority.IdentityFile("events"), authority.IdentityFile("events")
	h.start()
	made := h.credential("acme", "ada", "c1")
	root, err := os.ReadFile(authority.CertFile())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	trust := nats.Secure(&tls.Config{RootCAs: roots, ServerName: "events", MinVersion: tls.VersionTLS12})
	until(t, "the credential is known", func() bool {
		in, err := h.dial(made, trust)
		return err == nil && in.TLSRequired()
	})
	if _, err := h.dial(made); err == nil {
		t.Error("a client that does not know the authority comes in")
	}
	plain, err := net.Dial("tcp", h.service.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if _, err := plain.Write([]byte("CONNECT {}\r\nPING\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := plain.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if said, err := io.ReadAll(plain); strings.Contains(string(said), "PONG") || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("in plain text it says %q, %v", said, err)
	}
}

func TestWithoutTheLogNobodyNewComesIn(t *testing.T) {
	t.Parallel()
	h := begin(t)
	made := h.credential("acme", "ada", "c1")
	in := h.connect(made)
	h.log.Stop()
	until(t, "the log is lost", func() bool { return !h.js.Conn().IsConnected() })
	if _, err := h.dial(made); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("let in: %v", err)
	}
	if err := in.FlushTimeout(time.Second); err != nil || !in.IsConnected() {
		t.Errorf("who was inside is not any more: %v", err)
	}
	if h.service.Ready() == nil {
		t.Error("it says that it is ready")
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
