// Package memory is a DNS provider in memory, for tests: it holds to what the contract
// says, and can be made to fail.
package memory

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/slipway-paas/slipway/services/dns/zone"
)

// Provider is one account. It may be used concurrently.
type Provider struct {
	mu      sync.Mutex
	zones   map[string][]held
	tunnels map[string]*tunnel
	next    int
	now     func() time.Time
	fault   func(call string) (before, after error)
}

type held struct {
	zone.Record
	owner string
}

type tunnel struct {
	name, owner string
	rules       []zone.Rule
}

// New is an account with those zones. now may be nil.
func New(now func() time.Time, zones ...string) *Provider {
	if now == nil {
		now = time.Now
	}
	p := &Provider{zones: map[string][]held{}, tunnels: map[string]*tunnel{}, now: now}
	for _, apex := range zones {
		p.zones[apex] = nil
	}
	return p
}

// Fail has fault decide about each call, by its method's name: an error before it
// takes effect, or after. It is never called concurrently.
func (p *Provider) Fail(fault func(call string) (before, after error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = fault
}

// As is the account as the platform with that mark sees it.
func (p *Provider) As(owner string) zone.Provider { return account{p, owner} }

// All are the zone's records by ID, whoever made them.
func (p *Provider) All(apex string) []zone.Record {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]zone.Record, 0, len(p.zones[apex]))
	for _, h := range p.zones[apex] {
		all = append(all, h.Record)
	}
	return all
}

// call runs one call as it is meant to go, or to fail.
func (p *Provider) call(ctx context.Context, name string, do func() error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", zone.ErrUnavailable, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var before, after error
	if p.fault != nil {
		before, after = p.fault(name)
	}
	if before != nil {
		return before
	}
	if err := do(); err != nil {
		return err
	}
	return after
}

func (p *Provider) id() string {
	p.next++
	return strconv.Itoa(p.next)
}

type account struct {
	*Provider
	owner string
}

func (a account) Name() string { return "memory" }

func (a account) Zones(ctx context.Context) (all []zone.Zone, err error) {
	err = a.call(ctx, "Zones", func() error {
		for apex := range a.zones {
			all = append(all, apexZone{a, apex})
		}
		slices.SortFunc(all, func(x, y zone.Zone) int { return strings.Compare(x.Name(), y.Name()) })
		return nil
	})
	return all, err
}

func (a account) Tunnel(ctx context.Context, name string) (id string, err error) {
	err = a.call(ctx, "Tunnel", func() error {
		for known, t := range a.tunnels {
			if t.name == name && t.owner == a.owner {
				id = known
				return nil
			}
		}
		return zone.ErrGone
	})
	return id, err
}

func (a account) CreateTunnel(ctx context.Context, name string) (id string, err error) {
	err = a.call(ctx, "CreateTunnel", func() error {
		for _, t := range a.tunnels {
			if t.name == name && t.owner == a.owner {
				return zone.ErrTaken
			}
		}
		id = "t" + a.id()
		a.tunnels[id] = &tunnel{name: name, owner: a.owner}
		return nil
	})
	return id, err
}

func (a account) TunnelToken(ctx context.Context, id string) (token string, err error) {
	err = a.tunnel(ctx, "TunnelToken", id, func(*tunnel) { token = "token-" + id })
	return token, err
}

func (a account) Ingress(ctx context.Context, id string) (rules []zone.Rule, err error) {
	err = a.tunnel(ctx, "Ingress", id, func(t *tunnel) { rules = slices.Clone(t.rules) })
	return rules, err
}

func (a account) SetIngress(ctx context.Context, id string, rules []zone.Rule) error {
	return a.tunnel(ctx, "SetIngress", id, func(t *tunnel) { t.rules = slices.Clone(rules) })
}

func (a account) tunnel(ctx context.Context, call, id string, do func(*tunnel)) error {
	return a.call(ctx, call, func() error {
		t := a.tunnels[id]
		if t == nil {
			return zone.ErrGone
		}
		do(t)
		return nil
	})
}

func (a account) DeleteTunnel(ctx context.Context, id string) error {
	return a.call(ctx, "DeleteTunnel", func() error {
		delete(a.tunnels, id)
		return nil
	})
}

type apexZone struct {
	account
	apex string
}

func (z apexZone) Name() string { return z.apex }

func (z apexZone) Ours(ctx context.Context) (all []zone.Record, err error) {
	err = z.call(ctx, "Ours", func() error {
		all = z.read(func(r zone.Record) bool { return r.Ours })
		return nil
	})
	return all, err
}

func (z apexZone) Named(ctx context.Context, name string) (all []zone.Record, err error) {
	err = z.call(ctx, "Named", func() error {
		all = z.read(func(r zone.Record) bool { return r.Name == name })
		return nil
	})
	return all, err
}

func (z apexZone) read(which func(zone.Record) bool) (all []zone.Record) {
	for _, h := range z.zones[z.apex] {
		r := h.Record
		r.Ours = h.owner == z.owner
		if !r.Ours {
			r.Challenge = false
		}
		if which(r) {
			all = append(all, r)
		}
	}
	return all
}

func (z apexZone) Create(ctx context.Context, r zone.Record) (zone.Record, error) {
	err := z.call(ctx, "Create", func() error {
		if err := z.admit(r); err != nil {
			return err
		}
		r.ID, r.Ours, r.CreatedAt = z.id(), true, z.now()
		z.zones[z.apex] = append(z.zones[z.apex], held{r, z.owner})
		return nil
	})
	return r, err
}

// admit says why the zone cannot hold the record; one with its ID aside.
func (z apexZone) admit(r zone.Record) error {
	if !zone.Within(r.Name, z.apex) {
		return fmt.Errorf("%s is not in %s: %w", r.Name, z.apex, zone.ErrRefused)
	}
	if addr, err := netip.ParseAddr(r.Content); (r.Type == zone.A || r.Type == zone.AAAA) && (err != nil || addr.Is4() != (r.Type == zone.A)) {
		return fmt.Errorf("%s is no address for %s: %w", r.Content, r.Type, zone.ErrRefused)
	}
	addressed := []string{zone.A, zone.AAAA, zone.CNAME}
	for _, h := range z.zones[z.apex] {
		if h.Name != r.Name || h.ID == r.ID {
			continue
		}
		same := h.Type == r.Type && h.Content == r.Content
		alone := slices.Contains(addressed, h.Type) && slices.Contains(addressed, r.Type) && (h.Type == zone.CNAME || r.Type == zone.CNAME)
		if same || alone {
			return zone.ErrTaken
		}
	}
	return nil
}

func (z apexZone) Update(ctx context.Context, r zone.Record) error {
	if !r.Ours {
		return zone.ErrForeign
	}
	return z.call(ctx, "Update", func() error {
		for i, h := range z.zones[z.apex] {
			if h.ID != r.ID {
				continue
			}
			if err := z.admit(r); err != nil {
				return err
			}
			h.Content, h.TTL, h.Proxied = r.Content, r.TTL, r.Proxied
			z.zones[z.apex][i] = h
			return nil
		}
		return zone.ErrGone
	})
}

func (z apexZone) Delete(ctx context.Context, r zone.Record) error {
	if !r.Ours {
		return zone.ErrForeign
	}
	return z.call(ctx, "Delete", func() error {
		z.zones[z.apex] = slices.DeleteFunc(z.zones[z.apex], func(h held) bool { return h.ID == r.ID })
		return nil
	})
}
