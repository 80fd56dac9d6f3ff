// Package zonetest is the contract of package zone: what every provider does, the fakes
// too. What is read is waited for, since reads may lag behind writes.
package zonetest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/services/dns/zone"
)

// Subject is what is tested.
type Subject struct {
	// Open is the provider as the platform with that mark sees it.
	Open func(t *testing.T, owner string) zone.Provider
	// Zone is one that may be played in. Only names below a new one of the test's own
	// are touched.
	Zone string
	// Lag is how long a read may be behind a write.
	Lag time.Duration
	// Tunnels says whether tunnels may be made.
	Tunnels bool
}

// Run holds the subject to the contract.
func Run(t *testing.T, s Subject) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, *play){
		"a record is read as it was made":             asMade,
		"the same record is there once":               once,
		"a CNAME is alone":                            alone,
		"addresses and texts of one name live beside": beside,
		"a record is changed in place":                changed,
		"what is gone is gone":                        gone,
		"what others made is seen and not touched":    foreign,
		"every page is read":                          paged,
		"what makes no sense is refused":              refused,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t, s))
		})
	}
	if s.Tunnels {
		t.Run("a tunnel's life", func(t *testing.T) {
			t.Parallel()
			tunnel(t, s)
		})
	}
}

type play struct {
	Subject
	ours, others zone.Zone
	below        string
}

func open(t *testing.T, s Subject) *play {
	t.Helper()
	p := &play{Subject: s, below: "t" + strings.ToLower(rand.Text()[:10]) + "." + s.Zone}
	p.ours, p.others = find(t, s.Open(t, "slipway-zonetest"), s.Zone), find(t, s.Open(t, "somebody-else"), s.Zone)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for _, z := range []zone.Zone{p.ours, p.others} {
			all, err := z.Ours(ctx)
			if err != nil {
				t.Errorf("clean up: %v", err)
			}
			for _, r := range all {
				if !zone.Within(r.Name, p.below) {
					continue
				}
				if err := z.Delete(ctx, r); err != nil {
					t.Errorf("clean up %s: %v", r.Name, err)
				}
			}
		}
	})
	return p
}

func find(t *testing.T, p zone.Provider, apex string) zone.Zone {
	t.Helper()
	zones, err := p.Zones(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, z := range zones {
		if z.Name() == apex {
			return z
		}
	}
	t.Fatalf("the zone %s is not among the %d", apex, len(zones))
	return nil
}

func (p *play) name(label string) string { return label + "." + p.below }

// eventually waits until what is read is as it should be.
func (p *play) eventually(t *testing.T, z zone.Zone, name, what string, so func([]zone.Record) bool) []zone.Record {
	t.Helper()
	for deadline := time.Now().Add(p.Lag + 10*time.Second); ; time.Sleep(p.Lag/10 + 2*time.Millisecond) {
		all, err := z.Named(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if so(all) {
			return all
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: never so, %+v", what, all)
		}
	}
}

func (p *play) make(t *testing.T, z zone.Zone, r zone.Record) zone.Record {
	t.Helper()
	if r.TTL == 0 {
		r.TTL = 300
	}
	made, err := z.Create(t.Context(), r)
	if err != nil {
		t.Fatalf("make %s %s: %v", r.Type, r.Name, err)
	}
	p.eventually(t, z, r.Name, "it is there", func(all []zone.Record) bool {
		return slices.ContainsFunc(all, func(have zone.Record) bool { return have.ID == made.ID })
	})
	return made
}

func contents(all []zone.Record) string {
	var texts []string
	for _, r := range all {
		texts = append(texts, r.Type+" "+r.Content)
	}
	slices.Sort(texts)
	return strings.Join(texts, ", ")
}

func asMade(t *testing.T, p *play) {
	for i, want := range []zone.Record{
		{Type: zone.A, Content: "192.0.2.7", TTL: 300},
		{Type: zone.AAAA, Content: "2001:db8::7", TTL: zone.AutomaticTTL},
		{Type: zone.CNAME, Content: "app.example.com", TTL: zone.AutomaticTTL, Proxied: true},
		{Type: zone.TXT, Content: "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0", TTL: 60, Challenge: true},
		{Type: zone.TXT, Content: "with blanks; and = signs", TTL: 60},
	} {
		want.Name = p.name(fmt.Sprintf("r%d", i))
		made := p.make(t, p.ours, want)
		all := p.eventually(t, p.ours, want.Name, "it is there alone", func(all []zone.Record) bool { return len(all) == 1 })
		want.ID, want.Ours, want.CreatedAt = made.ID, true, all[0].CreatedAt
		if all[0] != want || made.ID == "" {
			t.Errorf("read back as\n%+v, want\n%+v", all[0], want)
		}
		if age := time.Since(want.CreatedAt); age < -time.Hour || age > time.Hour {
			t.Errorf("made at %v", want.CreatedAt)
		}
	}
}

func once(t *testing.T, p *play) {
	r := zone.Record{Name: p.name("once"), Type: zone.TXT, Content: "one", TTL: 60}
	p.make(t, p.ours, r)
	for _, z := range []zone.Zone{p.ours, p.others} {
		if _, err := z.Create(t.Context(), r); !errors.Is(err, zone.ErrTaken) {
			t.Errorf("made again: %v", err)
		}
	}
	p.eventually(t, p.ours, r.Name, "there is one", func(all []zone.Record) bool { return len(all) == 1 })
}

func alone(t *testing.T, p *play) {
	p.make(t, p.ours, zone.Record{Name: p.name("alone"), Type: zone.CNAME, Content: "a.example.com"})
	for _, r := range []zone.Record{
		{Type: zone.CNAME, Content: "b.example.com", TTL: 300}, {Type: zone.A, Content: "192.0.2.1", TTL: 300}, {Type: zone.AAAA, Content: "2001:db8::1", TTL: 300},
	} {
		r.Name = p.name("alone")
		if _, err := p.ours.Create(t.Context(), r); !errors.Is(err, zone.ErrTaken) {
			t.Errorf("%s beside a CNAME: %v", r.Type, err)
		}
	}
	p.make(t, p.ours, zone.Record{Name: p.name("addressed"), Type: zone.A, Content: "192.0.2.1"})
	if _, err := p.ours.Create(t.Context(), zone.Record{Name: p.name("addressed"), Type: zone.CNAME, Content: "a.example.com", TTL: 300}); !errors.Is(err, zone.ErrTaken) {
		t.Errorf("a CNAME beside an address: %v", err)
	}
}

func beside(t *testing.T, p *play) {
	name := p.name("many")
	first := p.make(t, p.ours, zone.Record{Name: name, Type: zone.TXT, Content: "for the base", Challenge: true})
	p.make(t, p.ours, zone.Record{Name: name, Type: zone.TXT, Content: "for the wildcard", Challenge: true})
	p.make(t, p.ours, zone.Record{Name: name, Type: zone.A, Content: "192.0.2.1"})
	p.make(t, p.ours, zone.Record{Name: name, Type: zone.A, Content: "192.0.2.2"})
	if err := p.ours.Delete(t.Context(), withMark(first)); err != nil {
		t.Fatal(err)
	}
	want := "A 192.0.2.1, A 192.0.2.2, TXT for the wildcard"
	p.eventually(t, p.ours, name, want, func(all []zone.Record) bool { return contents(all) == want })
}

func withMark(r zone.Record) zone.Record {
	r.Ours = true
	return r
}

func changed(t *testing.T, p *play) {
	r := withMark(p.make(t, p.ours, zone.Record{Name: p.name("changed"), Type: zone.CNAME, Content: "a.example.com"}))
	r.Content, r.TTL, r.Proxied = "b.example.com", zone.AutomaticTTL, true
	for range 2 { // doing it again does nothing
		if err := p.ours.Update(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	p.eventually(t, p.ours, r.Name, "it is the other one, in its place", func(all []zone.Record) bool {
		return len(all) == 1 && all[0].ID == r.ID && all[0].Content == "b.example.com" && all[0].TTL == zone.AutomaticTTL && all[0].Proxied && all[0].Ours
	})
}

func gone(t *testing.T, p *play) {
	r := withMark(p.make(t, p.ours, zone.Record{Name: p.name("gone"), Type: zone.A, Content: "192.0.2.1"}))
	for range 2 {
		if err := p.ours.Delete(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	p.eventually(t, p.ours, r.Name, "it is gone", func(all []zone.Record) bool { return len(all) == 0 })
	if err := p.ours.Update(t.Context(), r); !errors.Is(err, zone.ErrGone) {
		t.Errorf("changed after it was gone: %v", err)
	}
}

func foreign(t *testing.T, p *play) {
	name := p.name("theirs")
	p.make(t, p.others, zone.Record{Name: name, Type: zone.A, Content: "192.0.2.1"})
	all := p.eventually(t, p.ours, name, "we see it", func(all []zone.Record) bool { return len(all) == 1 })
	theirs := all[0]
	if theirs.Ours {
		t.Fatal("it counts as ours")
	}
	if err := p.ours.Delete(t.Context(), theirs); !errors.Is(err, zone.ErrForeign) {
		t.Errorf("deleted: %v", err)
	}
	theirs.Content = "192.0.2.2"
	if err := p.ours.Update(t.Context(), theirs); !errors.Is(err, zone.ErrForeign) {
		t.Errorf("changed: %v", err)
	}
	ours, err := p.ours.Ours(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(ours, func(r zone.Record) bool { return r.Name == name }) {
		t.Error("it is among ours")
	}
	p.eventually(t, p.ours, name, "it is as it was", func(all []zone.Record) bool { return contents(all) == "A 192.0.2.1" })
}

func paged(t *testing.T, p *play) {
	const many = 13 // more than two pages of five
	for i := range many {
		if _, err := p.ours.Create(t.Context(), zone.Record{Name: p.name(fmt.Sprintf("p%d", i)), Type: zone.A, Content: "192.0.2.1", TTL: 300}); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(p.Lag + 10*time.Second); ; time.Sleep(p.Lag/10 + 2*time.Millisecond) {
		all, err := p.ours.Ours(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]int{}
		for _, r := range all {
			if zone.Within(r.Name, p.below) {
				seen[r.Name]++
			}
		}
		if len(seen) == many {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d are read", len(seen), many)
		}
	}
}

func refused(t *testing.T, p *play) {
	for _, r := range []zone.Record{
		{Name: p.name("bad"), Type: zone.A, Content: "not an address", TTL: 300},
		{Name: p.name("bad"), Type: zone.A, Content: "2001:db8::1", TTL: 300},
		{Name: "elsewhere.invalid", Type: zone.A, Content: "192.0.2.1", TTL: 300},
	} {
		if _, err := p.ours.Create(t.Context(), r); !errors.Is(err, zone.ErrRefused) {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

func tunnel(t *testing.T, s Subject) {
	p := s.Open(t, "slipway-zonetest")
	name := "t" + strings.ToLower(rand.Text()[:10])
	if _, err := p.Tunnel(t.Context(), name); !errors.Is(err, zone.ErrGone) {
		t.Fatalf("found before it was made: %v", err)
	}
	id, err := p.CreateTunnel(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for range 2 { // the second time it is gone
			if err := p.DeleteTunnel(ctx, id); err != nil {
				t.Errorf("delete the tunnel: %v", err)
			}
		}
		if _, err := p.TunnelToken(ctx, id); !errors.Is(err, zone.ErrGone) {
			t.Errorf("a token after it was gone: %v", err)
		}
	})
	if _, err := p.CreateTunnel(t.Context(), name); !errors.Is(err, zone.ErrTaken) {
		t.Errorf("made twice: %v", err)
	}
	if _, err := s.Open(t, "somebody-else").Tunnel(t.Context(), name); !errors.Is(err, zone.ErrGone) {
		t.Errorf("somebody else takes it for their own: %v", err)
	}
	if token, err := p.TunnelToken(t.Context(), id); err != nil || token == "" {
		t.Errorf("its token: %q, %v", token, err)
	}
	rules := []zone.Rule{{Hostname: "*.apps." + s.Zone, Service: "http://127.0.0.1:8000"}, {Service: zone.NotFound}}
	for range 2 {
		if err := p.SetIngress(t.Context(), id, rules); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := p.Ingress(t.Context(), id); err != nil || !slices.Equal(got, rules) {
		t.Errorf("its rules are %v, %v", got, err)
	}
	for deadline := time.Now().Add(s.Lag + 10*time.Second); ; time.Sleep(s.Lag/10 + 2*time.Millisecond) {
		found, err := p.Tunnel(t.Context(), name)
		if found == id {
			return
		}
		if err != nil && !errors.Is(err, zone.ErrGone) || time.Now().After(deadline) {
			t.Fatalf("found %q, %v", found, err)
		}
	}
}
