package proof_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/slipway-paas/slipway/services/domains/domain"
	"github.com/slipway-paas/slipway/services/domains/proof"
)

func addresses(text ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range text {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func TestANameIsTheAppsWhenItsDNSSaysSo(t *testing.T) {
	t.Parallel()
	const target = "shop.apps.test"
	for name, tc := range map[string]struct {
		need    proof.Need
		answers proof.Answers
		method  string
		code    string
		says    string
	}{
		"a CNAME":                           {answers: proof.Answers{Chain: []string{target}, Addresses: addresses("10.9.9.9")}, method: domain.ByCNAME},
		"a CNAME whose host has no address": {answers: proof.Answers{Chain: []string{target}, Missing: true}, method: domain.ByCNAME},
		"a CNAME by way of another":         {answers: proof.Answers{Chain: []string{"www.else.test", target}}, method: domain.ByCNAME},
		"the edge's name":                   {answers: proof.Answers{Chain: []string{"edge.test"}, Addresses: addresses("10.9.9.9")}, method: domain.ByCNAME},
		"the edges' addresses":              {answers: proof.Answers{Addresses: addresses("192.0.2.1", "2001:db8::1")}, method: domain.ByAddress},
		"an ALIAS":                          {answers: proof.Answers{Addresses: addresses("192.0.2.77"), Ours: addresses("192.0.2.77")}, method: domain.ByAddress},
		"the proof alone":                   {answers: proof.Answers{Missing: true, Texts: []string{"v=spf1", "right"}}, method: domain.ByTXT},
		"nothing":                           {answers: proof.Answers{Missing: true}, code: domain.NotFound, says: "no record"},
		"no address":                        {answers: proof.Answers{}, code: domain.NotFound, says: "no record"},
		"an alias of nothing":               {answers: proof.Answers{Chain: []string{"gone.test"}, Missing: true}, code: domain.NotFound, says: "gone.test, which does not exist"},
		"another address":                   {answers: proof.Answers{Addresses: addresses("203.0.113.9")}, code: domain.ResolvesElsewhere, says: "203.0.113.9; make it lead to " + target},
		"one address of two":                {answers: proof.Answers{Addresses: addresses("192.0.2.1", "203.0.113.9")}, code: domain.ResolvesElsewhere, says: "leads to 203.0.113.9;"},
		"many addresses":                    {answers: proof.Answers{Addresses: addresses("203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4", "203.0.113.5")}, code: domain.ResolvesElsewhere, says: "and 1 more"},
		"another app":                       {answers: proof.Answers{Chain: []string{"other.apps.test"}, Addresses: addresses("192.0.2.1")}, code: domain.ResolvesElsewhere, says: "another app's host"},
		"a circle":                          {answers: proof.Answers{Chain: []string{target, "www.example.test"}, Looped: true}, code: domain.Loops, says: "www.example.test → shop.apps.test → www.example.test;"},
		"a wrong proof":                     {answers: proof.Answers{Missing: true, Texts: []string{"wrong", "righ", "rightt"}}, code: domain.NotFound},
		"another org has it":                {need: proof.Proof, answers: proof.Answers{Chain: []string{target}}, code: domain.ProofMissing, says: "TXT record _slipway.www.example.test with the value right"},
		"another org has it, and proof":     {need: proof.Proof, answers: proof.Answers{Texts: []string{"right"}}, method: domain.ByTXT},
		"another org wants it":              {need: proof.Sure, answers: proof.Answers{Addresses: addresses("192.0.2.1")}, code: domain.ProofMissing, says: "make it a CNAME"},
		"another org wants it, by the edge": {need: proof.Sure, answers: proof.Answers{Chain: []string{"edge.test"}}, code: domain.ProofMissing, says: "another organization has added it too"},
		"another org wants it, and a CNAME": {need: proof.Sure, answers: proof.Answers{Chain: []string{target}}, method: domain.ByCNAME},
		"another org has it, it is nowhere": {need: proof.Proof, answers: proof.Answers{Missing: true}, code: domain.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := proof.Judge(proof.Wanted{Name: "www.example.test", Target: target, Base: "apps.test", Edge: "edge.test",
				Addresses: addresses("192.0.2.1", "2001:db8::1"), Proof: "right", Need: tc.need}, tc.answers)
			if got.Method != tc.method || got.Code != tc.code || !strings.Contains(got.Reason, tc.says) || (got.Method == "") == (got.Reason == "") {
				t.Errorf("got %+v, wanted %q %q that says %q", got, tc.method, tc.code, tc.says)
			}
		})
	}
	if got := proof.Judge(proof.Wanted{Name: "a.test", Target: "b.test"}, proof.Answers{Missing: true, Texts: []string{""}}); got.Method != "" {
		t.Errorf("no proof is taken for one: %+v", got)
	}
}
