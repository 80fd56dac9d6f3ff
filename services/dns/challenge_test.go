package dns_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	dnsv1 "github.com/slipway-paas/slipway/gen/slipway/dns/v1"
	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/dns/zone"
)

func (w *world) challenge(t *testing.T, action dnsv1.ChallengeAction, fqdn, value string) string {
	t.Helper()
	data, err := proto.Marshal(&dnsv1.ChallengeRequest{Fqdn: fqdn, Value: value, Action: action})
	if err != nil {
		t.Fatal(err)
	}
	msg, err := w.nats.Request(subjects.DNSChallengeRequests, data, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	res := &dnsv1.ChallengeResponse{}
	if err := proto.Unmarshal(msg.Data, res); err != nil {
		t.Fatal(err)
	}
	return res.GetError()
}

const (
	present = dnsv1.ChallengeAction_CHALLENGE_ACTION_PRESENT
	cleanup = dnsv1.ChallengeAction_CHALLENGE_ACTION_CLEANUP
)

func TestAnEdgesChallengeIsThereWhenTheAnswerComes(t *testing.T) {
	t.Parallel()
	c := config()
	c.EdgeAddresses = nil
	w := begin(t, c)
	const fqdn = "_acme-challenge.apps.example.test"
	one, two := fqdn+" TXT "+value("base"), fqdn+" TXT "+value("wildcard")
	both := []string{one, two}
	slices.Sort(both)
	// The base domain and its wildcard, and one of them again, through failures.
	var failures int
	w.provider.Fail(func(string) (error, error) {
		if failures++; failures%3 == 0 {
			return nil, zone.ErrUnavailable
		}
		return nil, nil
	})
	for _, text := range []string{"base", "wildcard", "base"} {
		if why := w.challenge(t, present, fqdn, value(text)); why != "" {
			t.Fatal(why)
		}
		if !strings.Contains(w.records("example.test"), value(text)) {
			t.Fatalf("%s is not there", text)
		}
	}
	w.provider.Fail(nil)
	if got := w.records("example.test"); got != strings.Join(both, "\n") {
		t.Errorf("there is\n%s", got)
	}
	for range 2 {
		if why := w.challenge(t, cleanup, fqdn, value("base")); why != "" {
			t.Fatal(why)
		}
	}
	if got := w.records("example.test"); got != two {
		t.Errorf("after the cleanup there is\n%s", got)
	}
	// A comparison leaves a fresh one alone, and removes what a crash left.
	for _, step := range []struct {
		later time.Duration
		want  string
	}{{time.Minute, two}, {2 * time.Hour, ""}} {
		w.later(step.later)
		if _, err := w.client.SyncDNS(t.Context(), &dnsv1.SyncDNSRequest{}); err != nil {
			t.Fatal(err)
		}
		if got := w.records("example.test"); got != step.want {
			t.Errorf("after %v there is\n%s", step.later, got)
		}
	}
}

func TestAChallengeIsForNamesOfOursOnly(t *testing.T) {
	t.Parallel()
	w := begin(t, config())
	w.added(t, "acme", "d1", "www.acme.test")
	w.added(t, "acme", "d2", "www.elsewhere.test")
	w.told(t, "acme", "applied www.acme.test")
	good := value("x")
	for _, c := range []struct{ fqdn, value, want string }{
		{"_acme-challenge.www.acme.test", good, "neither the base domain"},
		{"_acme-challenge.example.test", good, "neither the base domain"},
		{"_acme-challenge.evilapps.example.test", good, "neither the base domain"},
		{"www.apps.example.test", good, "no name of an ACME challenge"},
		{"_acme-challenge.*.apps.example.test", good, "no name of an ACME challenge"},
		{"_acme-challenge.", good, "no name of an ACME challenge"},
		{"_acme-challenge." + strings.Repeat("a.", 130) + "apps.example.test", good, "no name of an ACME challenge"},
		{"_acme-challenge.apps.example.test", "v=spf1 include:evil.example", "no digest"},
		{"_acme-challenge.apps.example.test", "", "no digest"},
	} {
		if why := w.challenge(t, present, c.fqdn, c.value); !strings.Contains(why, c.want) {
			t.Errorf("%s: answered %q", c.fqdn, why)
		}
	}
	if why := w.challenge(t, 0, "_acme-challenge.apps.example.test", good); !strings.Contains(why, "neither present nor cleanup") {
		t.Errorf("no action: answered %q", why)
	}
	w.happened(t, "acme", "d1", &domainv1.DomainVerified{Method: "cname"})
	w.happened(t, "acme", "d2", &domainv1.DomainVerified{Method: "cname"})
	eventually(t, "a verified domain may", func() bool { return w.challenge(t, present, "_acme-challenge.www.acme.test", good) == "" })
	eventually(t, "but not in others' zones", func() bool {
		return strings.Contains(w.challenge(t, present, "_acme-challenge.www.elsewhere.test", good), "none of the 3 DNS zones")
	})
	for i := range 20 {
		if why := w.challenge(t, present, "_acme-challenge.many.apps.example.test", value(fmt.Sprint(i))); strings.Contains(why, "has 8 values") {
			return
		}
	}
	t.Error("a name takes any number of values")
}
