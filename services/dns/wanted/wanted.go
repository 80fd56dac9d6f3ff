package wanted

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/dns/tunnel"
	"github.com/slipway-paas/slipway/services/dns/zone"
)

// Shared is the use of a zone in which every org's domains may be.
const Shared = "*"

// Policy is what the operator of the platform has set.
type Policy struct {
	// BaseDomain is what apps live under.
	BaseDomain string
	// Edge are the addresses that the base domain leads to, or one name.
	Edge []string
	// TTL is in seconds, or zone.AutomaticTTL.
	TTL int
	// Proxied has the provider stand before custom domains and the base domain.
	Proxied bool
	// Use says of zones whose domains may be in them: an org's id, or Shared. A zone
	// that is not there is the platform's alone.
	Use map[string]string
}

// Want is a record that there shall be.
type Want struct {
	zone.Record
	// Zone is the apex, Org whose events tell of it, DomainID the custom domain.
	Zone, Org, DomainID string
	// Refusal says why it is not made although somebody asked for it.
	Refusal string
}

// names are those that a tenant's domain may have: no wildcard, no underscore.
var names = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Records are all that is wanted in zones with those apexes, in a fixed order: the
// platform's names go before tenants', and who came first before who came later.
func (s *State) Records(apexes []string, p Policy) []Want {
	var all []Want
	taken := map[string]bool{}
	for _, t := range s.Tunnels() {
		if !t.Wanted() || t.TunnelID == "" {
			continue
		}
		for _, host := range t.Hostnames {
			apex := zone.Holding(host, apexes)
			if apex == "" || taken[host] {
				continue
			}
			taken[host] = true
			all = append(all, intoTunnel(Want{Zone: apex, Org: subjects.Platform}, host, t))
		}
	}
	if apex := zone.Holding(p.BaseDomain, apexes); apex != "" {
		for _, host := range []string{p.BaseDomain, "*." + p.BaseDomain} {
			if taken[host] {
				continue
			}
			for _, edge := range p.Edge {
				taken[host] = true
				all = append(all, Want{Record: p.record(host, recordType(edge), edge), Zone: apex, Org: subjects.Platform})
			}
		}
	}
	through := s.through(p)
	for _, d := range s.winners() {
		apex := zone.Holding(d.Name, apexes)
		if apex == "" {
			continue
		}
		w := Want{Record: p.record(d.Name, zone.CNAME, d.Target), Zone: apex, Org: d.Org, DomainID: d.ID}
		if through.TunnelID != "" {
			w = intoTunnel(w, d.Name, through)
		}
		w.Refusal = p.refusal(d, apex, taken[d.Name])
		all = append(all, w)
	}
	return all
}

func intoTunnel(w Want, host string, t tunnel.State) Want {
	w.Record = zone.Record{Name: host, Type: zone.CNAME, Content: zone.TunnelTarget(t.TunnelID), TTL: zone.AutomaticTTL, Proxied: true}
	return w
}

func (p Policy) record(name, kind, content string) zone.Record {
	r := zone.Record{Name: name, Type: kind, Content: content, TTL: cmp.Or(p.TTL, zone.AutomaticTTL), Proxied: p.Proxied}
	if r.Proxied {
		// What stands before the record has its own TTL.
		r.TTL = zone.AutomaticTTL
	}
	return r
}

func recordType(content string) string {
	addr, err := netip.ParseAddr(content)
	switch {
	case err != nil:
		return zone.CNAME
	case addr.Is4():
		return zone.A
	}
	return zone.AAAA
}

// refusal says why a tenant's domain gets no record in a zone of ours; empty when it does.
func (p Policy) refusal(d Domain, apex string, taken bool) string {
	use := p.Use[apex]
	switch {
	case !names.MatchString(d.Name) || len(d.Name) > 253:
		return fmt.Sprintf("%q is no host name", d.Name)
	case zone.Within(d.Name, p.BaseDomain), taken:
		return fmt.Sprintf("%s is the platform's own name", d.Name)
	case use == "":
		return fmt.Sprintf("%s lies in the zone %s, which is the platform's own; ask its operator to open the zone to your organization", d.Name, apex)
	case use == Shared && d.Name == apex:
		return fmt.Sprintf("%s is the zone itself, which is shared; take a name below it", d.Name)
	case use != Shared && use != d.Org:
		return fmt.Sprintf("%s lies in the zone %s, which is another organization's", d.Name, apex)
	case d.Target == p.BaseDomain || !zone.Within(d.Target, p.BaseDomain):
		return fmt.Sprintf("it leads to %q, which is no app's host", d.Target)
	}
	return ""
}

// winners are, of the domains with one name, who is verified, or else who came first
// and has nothing to prove; in the order of names.
func (s *State) winners() []Domain {
	best := map[string]Domain{}
	better := func(d, than Domain) bool {
		if d.Verified != than.Verified {
			return d.Verified
		}
		return d.Since < than.Since
	}
	for _, d := range s.domains {
		if d.ProofNeeded && !d.Verified {
			continue
		}
		if held, ok := best[d.Name]; !ok || better(d, held) {
			best[d.Name] = d
		}
	}
	var all []Domain
	for _, name := range slices.Sorted(maps.Keys(best)) {
		all = append(all, best[name])
	}
	return all
}

// through is the tunnel that everything under the base domain goes through, if one does.
func (s *State) through(p Policy) tunnel.State {
	for _, t := range s.Tunnels() {
		if t.Wanted() && t.TunnelID != "" && slices.Contains(t.Hostnames, "*."+p.BaseDomain) {
			return t
		}
	}
	return tunnel.State{}
}

// Rules are where the tunnel shall send hostnames: its own, and custom domains in our
// zones when all of the base domain goes through it. The last rule is for the rest.
func (s *State) Rules(t tunnel.State, apexes []string, p Policy) []zone.Rule {
	var rules []zone.Rule
	for _, host := range t.Hostnames {
		rules = append(rules, zone.Rule{Hostname: host, Service: t.Service})
	}
	if slices.Contains(t.Hostnames, "*."+p.BaseDomain) {
		for _, d := range s.winners() {
			apex := zone.Holding(d.Name, apexes)
			if apex != "" && p.refusal(d, apex, slices.Contains(t.Hostnames, d.Name)) == "" {
				rules = append(rules, zone.Rule{Hostname: d.Name, Service: t.Service})
			}
		}
	}
	return append(rules, zone.Rule{Service: zone.NotFound})
}

// Plan is what makes a zone what it shall be. Deletions go first, then updates, since
// they make room for what is made.
type Plan struct {
	Delete []zone.Record
	Update []Change
	Create []Want
	// Kept are wanted and there.
	Kept []Want
}

// Change gives a record of ours another content.
type Change struct {
	Want Want
	// To is the record as it shall be, with its ID.
	To zone.Record
}

// Empty reports whether there is nothing to do.
func (p Plan) Empty() bool { return len(p.Delete)+len(p.Update)+len(p.Create) == 0 }

type owner struct{ name, kind string }

// Compare holds what is wanted in one zone against the records of ours in it. Those of
// challenges are left alone.
func Compare(wants []Want, ours []zone.Record) Plan {
	var plan Plan
	have := map[owner][]zone.Record{}
	for _, r := range ours {
		if r.Ours && !r.Challenge {
			key := owner{r.Name, r.Type}
			have[key] = append(have[key], r)
		}
	}
	missing := map[owner][]Want{}
	for _, w := range wants {
		if w.Refusal != "" {
			continue
		}
		key := owner{w.Name, w.Type}
		at := slices.IndexFunc(have[key], func(r zone.Record) bool { return r.Content == w.Content })
		if at < 0 {
			missing[key] = append(missing[key], w)
			continue
		}
		r := have[key][at]
		have[key] = slices.Delete(slices.Clone(have[key]), at, at+1)
		if r.TTL == w.TTL && r.Proxied == w.Proxied {
			plan.Kept = append(plan.Kept, w)
		} else {
			plan.Update = append(plan.Update, change(w, r))
		}
	}
	for _, w := range wants {
		key := owner{w.Name, w.Type}
		if len(missing[key]) == 0 || missing[key][0].Aggregate() != w.Aggregate() {
			continue
		}
		missing[key] = missing[key][1:]
		if len(have[key]) == 0 {
			plan.Create = append(plan.Create, w)
			continue
		}
		plan.Update = append(plan.Update, change(w, have[key][0]))
		have[key] = have[key][1:]
	}
	for _, key := range slices.SortedFunc(maps.Keys(have), func(a, b owner) int {
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.kind, b.kind))
	}) {
		plan.Delete = append(plan.Delete, have[key]...)
	}
	return plan
}

func change(w Want, r zone.Record) Change {
	r.Content, r.TTL, r.Proxied = w.Content, w.TTL, w.Proxied
	return Change{Want: w, To: r}
}
