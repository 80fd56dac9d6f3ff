package wanted_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	dnsv1 "github.com/slipway-paas/slipway/gen/slipway/dns/v1"
	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/dns/wanted"
	"github.com/slipway-paas/slipway/services/dns/zone"
)

// log is a story: what happened, in order.
type log struct {
	*wanted.State
	sequence uint64
}

func begin() *log { return &log{State: wanted.NewState()} }

func (l *log) happened(org, kind, id string, e proto.Message) *log {
	l.sequence++
	l.Apply(eventstore.Recorded{Event: eventstore.Event{Aggregate: subjects.Of(org, kind, id), Payload: e}, Sequence: l.sequence})
	return l
}

func (l *log) added(org, id, name string) *log {
	return l.happened(org, subjects.Domain, id, &domainv1.DomainAdded{DomainId: id, Name: name, Target: "app.apps.example.com"})
}

var policy = wanted.Policy{
	BaseDomain: "apps.example.com", Edge: []string{"192.0.2.1", "2001:db8::1"},
	Use: map[string]string{"shared.test": wanted.Shared, "acme.test": "acme"},
}

var held = []string{"example.com", "shared.test", "acme.test"}

// shown are the records in a line each.
func (l *log) shown(p wanted.Policy) string {
	var lines []string
	for _, w := range l.Records(held, p) {
		line := fmt.Sprintf("%s %s %s", w.Name, w.Type, w.Content)
		if w.Refusal != "" {
			line = fmt.Sprintf("%s refused", w.Name)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

const base = `apps.example.com A 192.0.2.1
apps.example.com AAAA 2001:db8::1
*.apps.example.com A 192.0.2.1
*.apps.example.com AAAA 2001:db8::1`

func TestTheBaseDomainLeadsToTheEdge(t *testing.T) {
	t.Parallel()
	if got := begin().shown(policy); got != base {
		t.Errorf("wanted:\n%s", got)
	}
	if got := begin().shown(wanted.Policy{BaseDomain: "apps.localhost", Edge: []string{"192.0.2.1"}}); got != "" {
		t.Errorf("in a zone that is not held:\n%s", got)
	}
}

func TestADomainGetsARecordOnlyWhereItsOrgMay(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"www.shared.test":       "www.shared.test CNAME app.apps.example.com",
		"www.acme.test":         "www.acme.test CNAME app.apps.example.com",
		"acme.test":             "acme.test CNAME app.apps.example.com",
		"shared.test":           "shared.test refused",
		"www.example.com":       "www.example.com refused",
		"api.apps.example.com":  "api.apps.example.com refused",
		"apps.example.com":      "apps.example.com refused",
		"*.shared.test":         "*.shared.test refused",
		"_acme-x.shared.test":   "_acme-x.shared.test refused",
		"www.somewhere.invalid": "",
	} {
		if got := strings.TrimPrefix(strings.TrimPrefix(begin().added("acme", "d1", name).shown(policy), base), "\n"); got != want {
			t.Errorf("%s: wanted %q", name, got)
		}
	}
	if got := begin().added("bob", "d1", "www.acme.test").shown(policy); !strings.HasSuffix(got, "www.acme.test refused") {
		t.Errorf("another org's zone:\n%s", got)
	}
	elsewhere := begin().happened("acme", subjects.Domain, "d1", &domainv1.DomainAdded{Name: "www.acme.test", Target: "evil.example.net"})
	if got := elsewhere.shown(policy); !strings.HasSuffix(got, "www.acme.test refused") {
		t.Errorf("to what is no app:\n%s", got)
	}
}

func TestOfTwoWithOneNameTheVerifiedOneHasIt(t *testing.T) {
	t.Parallel()
	of := func(l *log) string {
		for _, w := range l.Records(held, policy) {
			if w.Name == "www.shared.test" {
				return w.Org
			}
		}
		return "nobody"
	}
	l := begin().added("acme", "d1", "www.shared.test").added("bob", "d2", "www.shared.test")
	steps := []struct {
		org, id string
		event   proto.Message
		want    string
	}{
		{"bob", "d2", &domainv1.DomainVerified{}, "bob"},
		{"acme", "d1", &domainv1.DomainCheckFailed{}, "bob"},
		{"bob", "d2", &domainv1.DomainLost{}, "acme"},
		{"acme", "d1", &domainv1.DomainRemoved{}, "nobody"},
		{"eve", "d3", &domainv1.DomainAdded{Name: "www.shared.test", Target: "app.apps.example.com", ProofNeeded: true}, "nobody"},
		{"eve", "d3", &domainv1.DomainVerified{}, "eve"},
	}
	if got := of(l); got != "acme" {
		t.Fatalf("at first it is %s's", got)
	}
	for i, s := range steps {
		if got := of(l.happened(s.org, subjects.Domain, s.id, s.event)); got != s.want {
			t.Fatalf("step %d: it is %s's, not %s's", i, got, s.want)
		}
	}
	if !l.Verified("www.shared.test") || l.Verified("shared.test") {
		t.Error("what is verified is not known")
	}
}

func TestATunnelTakesTheBaseDomainAndItsDomainsAlong(t *testing.T) {
	t.Parallel()
	hosts := []string{"apps.example.com", "*.apps.example.com", "elsewhere.invalid"}
	l := begin().added("acme", "d1", "www.acme.test").happened(subjects.Platform, subjects.Tunnel, "home", &dnsv1.TunnelRequested{Name: "home", Hostnames: hosts, Service: "http://127.0.0.1:8000"})
	if got := l.shown(policy); got != base+"\nwww.acme.test CNAME app.apps.example.com" {
		t.Errorf("before there is one:\n%s", got)
	}
	l.happened(subjects.Platform, subjects.Tunnel, "home", &dnsv1.TunnelReady{TunnelId: "t1", Token: []byte("x")})
	want := `apps.example.com CNAME t1.cfargotunnel.com
*.apps.example.com CNAME t1.cfargotunnel.com
www.acme.test CNAME t1.cfargotunnel.com`
	if got := l.shown(policy); got != want {
		t.Errorf("through it:\n%s", got)
	}
	rules := l.Rules(l.Tunnel("home"), held, policy)
	if len(rules) != 5 || rules[3].Hostname != "www.acme.test" || rules[4] != (zone.Rule{Service: zone.NotFound}) {
		t.Errorf("its rules are %v", rules)
	}
	l.happened(subjects.Platform, subjects.Tunnel, "home", &dnsv1.TunnelDeleteRequested{})
	if got := l.shown(policy); got != base+"\nwww.acme.test CNAME app.apps.example.com" {
		t.Errorf("after it:\n%s", got)
	}
}

func TestAZoneIsMadeWhatItShallBe(t *testing.T) {
	t.Parallel()
	ours := func(id, name, kind, content string) zone.Record {
		return zone.Record{ID: id, Name: name, Type: kind, Content: content, TTL: zone.AutomaticTTL, Ours: true}
	}
	wants := func(all ...zone.Record) (out []wanted.Want) {
		for _, r := range all {
			r.ID, r.Ours = "", false
			out = append(out, wanted.Want{Record: r, Zone: "example.com", Org: "acme"})
		}
		return out
	}
	a1, a2, a3 := ours("1", "a.example.com", zone.A, "192.0.2.1"), ours("2", "a.example.com", zone.A, "192.0.2.2"), ours("3", "a.example.com", zone.A, "192.0.2.3")
	c1 := ours("4", "a.example.com", zone.CNAME, "b.example.com")
	challenge := zone.Record{ID: "5", Name: "_acme-challenge.a.example.com", Type: zone.TXT, Content: "x", Ours: true, Challenge: true}
	theirs := zone.Record{ID: "6", Name: "b.example.com", Type: zone.A, Content: "192.0.2.9"}
	proxied := a1
	proxied.Proxied = true
	for name, c := range map[string]struct {
		wants                        []wanted.Want
		there                        []zone.Record
		remove, update, create, kept int
	}{
		"nothing":             {nil, []zone.Record{challenge, theirs}, 0, 0, 0, 0},
		"as it is":            {wants(a1, a2), []zone.Record{a2, a1, challenge}, 0, 0, 0, 2},
		"one more":            {wants(a1, a2), []zone.Record{a1}, 0, 0, 1, 1},
		"one less":            {wants(a1), []zone.Record{a1, a2}, 1, 0, 0, 1},
		"another":             {wants(a1, a3), []zone.Record{a1, a2}, 0, 1, 0, 1},
		"another kind":        {wants(c1), []zone.Record{a1, a2}, 2, 0, 1, 0},
		"the same twice":      {wants(a1), []zone.Record{a1, ours("7", "a.example.com", zone.A, "192.0.2.1")}, 1, 0, 0, 1},
		"through the proxy":   {wants(proxied), []zone.Record{a1}, 0, 1, 0, 0},
		"what others have":    {wants(theirs), []zone.Record{theirs}, 0, 0, 1, 0},
		"nothing is wanted":   {nil, []zone.Record{a1, c1, challenge}, 2, 0, 0, 0},
		"what may not be not": {[]wanted.Want{{Record: a1, Refusal: "no"}}, nil, 0, 0, 0, 0},
	} {
		p := wanted.Compare(c.wants, c.there)
		if len(p.Delete) != c.remove || len(p.Update) != c.update || len(p.Create) != c.create || len(p.Kept) != c.kept {
			t.Errorf("%s: %+v", name, p)
		}
	}
	if p := wanted.Compare(wants(a1, a3), []zone.Record{a1, a2}); p.Update[0].To.ID != "2" || p.Update[0].To.Content != "192.0.2.3" {
		t.Errorf("changed in its place: %+v", p.Update)
	}
}

// TestEveryEventHasAFold: an event that is added must be decided about here.
func TestEveryEventHasAFold(t *testing.T) {
	t.Parallel()
	ignored := []string{
		"Record", // a part of events
		"DomainCheckFailed", "DomainCheckRequested", "CertificateObtained", "CertificateFailed", "PrimaryDomainSet", "PrimaryDomainUnset",
	}
	folded := []string{
		"DomainAdded", "DomainVerified", "DomainLost", "DomainRemoved", "RecordApplied", "RecordRemoved", "RecordFailed",
		"TunnelRequested", "TunnelReady", "TunnelFailed", "TunnelDeleteRequested", "TunnelDeleted",
	}
	for _, file := range []protoreflect.FileDescriptor{dnsv1.File_slipway_dns_v1_events_proto, domainv1.File_slipway_domain_v1_events_proto} {
		for i := range file.Messages().Len() {
			if name := string(file.Messages().Get(i).Name()); !slices.Contains(ignored, name) && !slices.Contains(folded, name) {
				t.Errorf("%s has no fold", name)
			}
		}
	}
}
