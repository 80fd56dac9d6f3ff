package resolver_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/slipway-paas/slipway/services/domains/dnstest"
	"github.com/slipway-paas/slipway/services/domains/domain"
	"github.com/slipway-paas/slipway/services/domains/proof"
	"github.com/slipway-paas/slipway/services/domains/resolver"
)

const (
	name   = "www.example.test"
	target = "shop.apps.test"
)

func wanted() proof.Wanted {
	return proof.Wanted{Name: name, Target: target, Base: "apps.test", Edge: "edge.test",
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Proof: "right"}
}

// world is a DNS server with the platform's own records, and who asks it.
func world(t *testing.T) (*dnstest.Server, *resolver.Resolver) {
	t.Helper()
	server := dnstest.Start(t)
	r, err := resolver.New(server.Address)
	if err != nil {
		t.Fatal(err)
	}
	server.Set(t, "edge.test", "A 192.0.2.2", "AAAA 2001:db8::2")
	server.Set(t, target, "CNAME edge.test.")
	return server, r
}

func TestRealAnswersAreJudged(t *testing.T) {
	t.Parallel()
	long := make([]string, 40)
	for i := range long {
		long[i] = fmt.Sprintf("TXT %q", strings.Repeat("x", 200)+fmt.Sprint(i))
	}
	for story, tc := range map[string]struct {
		records map[string][]string
		method  string
		code    string
	}{
		"nothing":             {nil, "", domain.NotFound},
		"a CNAME":             {map[string][]string{name: {"CNAME " + target + "."}}, domain.ByCNAME, ""},
		"a CNAME in capitals": {map[string][]string{name: {"CNAME Shop.APPS.test."}}, domain.ByCNAME, ""},
		"two CNAMEs":          {map[string][]string{name: {"CNAME a.test."}, "a.test": {"CNAME " + target + "."}}, domain.ByCNAME, ""},
		"the edge":            {map[string][]string{name: {"CNAME edge.test."}}, domain.ByCNAME, ""},
		"an address":          {map[string][]string{name: {"A 192.0.2.1"}}, domain.ByAddress, ""},
		"an ALIAS":            {map[string][]string{name: {"A 192.0.2.2", "AAAA 2001:db8::2"}}, domain.ByAddress, ""},
		"half an ALIAS":       {map[string][]string{name: {"A 192.0.2.2", "AAAA 2001:db8::9"}}, "", domain.ResolvesElsewhere},
		"elsewhere":           {map[string][]string{name: {"CNAME a.test."}, "a.test": {"A 203.0.113.9"}}, "", domain.ResolvesElsewhere},
		"a dead end":          {map[string][]string{name: {"CNAME gone.test."}}, "", domain.NotFound},
		"mail alone":          {map[string][]string{name: {"MX 10 mail.test."}}, "", domain.NotFound},
		"itself":              {map[string][]string{name: {"CNAME " + name + "."}}, "", domain.Loops},
		"a circle":            {map[string][]string{name: {"CNAME a.test."}, "a.test": {"CNAME " + name + "."}}, "", domain.Loops},
		"ours leads back":     {map[string][]string{name: {"CNAME " + target + "."}, target: {"CNAME " + name + "."}}, "", domain.Loops},
		"the proof":           {map[string][]string{"_slipway." + name: {`TXT "v=spf1"`, `TXT "ri" "ght"`}}, domain.ByTXT, ""},
		"a long proof":        {map[string][]string{"_slipway." + name: append(long, `TXT "right"`)}, domain.ByTXT, ""},
	} {
		t.Run(story, func(t *testing.T) {
			t.Parallel()
			server, r := world(t)
			for of, records := range tc.records {
				server.Set(t, of, records...)
			}
			answers, err := r.Look(t.Context(), wanted())
			if err != nil {
				t.Fatal(err)
			}
			if v := proof.Judge(wanted(), answers); v.Method != tc.method || v.Code != tc.code {
				t.Errorf("%+v is judged %+v, wanted %q %q", answers, v, tc.method, tc.code)
			}
		})
	}
}

func TestALongChainHasNoEnd(t *testing.T) {
	t.Parallel()
	server, r := world(t)
	server.Set(t, name, "CNAME a0.test.")
	for i := range 20 {
		server.Set(t, fmt.Sprintf("a%d.test", i), fmt.Sprintf("CNAME a%d.test.", i+1))
	}
	answers, err := r.Look(t.Context(), wanted())
	if v := proof.Judge(wanted(), answers); err != nil || v.Code != domain.Loops || len(v.Reason) > 1000 {
		t.Errorf("judged %+v, %v", v, err)
	}
}

func TestNoAnswerSaysNothingOfTheName(t *testing.T) {
	t.Parallel()
	server, r := world(t)
	server.Fail(name)
	if _, err := r.Look(t.Context(), wanted()); !errors.Is(err, resolver.ErrUnavailable) {
		t.Errorf("SERVFAIL: %v", err)
	}
	// Who needs no proof is not kept waiting for it.
	server.Set(t, name, "CNAME "+target+".")
	server.Fail("_slipway." + name)
	if answers, err := r.Look(t.Context(), wanted()); err != nil || proof.Judge(wanted(), answers).Method != domain.ByCNAME {
		t.Errorf("SERVFAIL of the proof: %+v, %v", answers, err)
	}
	strict := wanted()
	strict.Need = proof.Proof
	if _, err := r.Look(t.Context(), strict); !errors.Is(err, resolver.ErrUnavailable) {
		t.Errorf("SERVFAIL of a proof that is needed: %v", err)
	}
	nobody, err := resolver.New("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nobody.Look(t.Context(), wanted()); !errors.Is(err, resolver.ErrUnavailable) {
		t.Errorf("nobody there: %v", err)
	}
	if _, err := resolver.New("nonsense"); err == nil {
		t.Error("nonsense is taken for a server")
	}
	if _, err := resolver.New(""); err != nil {
		t.Errorf("the system's: %v", err)
	}
}
