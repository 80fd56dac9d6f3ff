// Package proof judges whether what DNS says of a name makes it an app's. It is pure.
package proof

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/slipway-paas/slipway/libs/domainname"
	"github.com/slipway-paas/slipway/services/domains/domain"
)

// Record is where the TXT record of a name's proof belongs.
func Record(name string) string { return "_slipway." + name }

// Need is what it takes to be believed.
type Need int

// Needs, each of which takes more than the one before.
const (
	// Lead: the name must lead to the platform.
	Lead Need = iota
	// Sure: nothing but the app's own host or the proof tells whose it is, as another
	// org has added the name too.
	Sure
	// Proof: another org has proved the name.
	Proof
)

// Wanted is what DNS is held against.
type Wanted struct {
	Name string
	// Target is the app's own host, Base the domain that all apps' hosts are under.
	Target, Base string
	// Edge is a name of the edges; empty for none.
	Edge string
	// Addresses are those of the edges.
	Addresses []netip.Addr
	// Proof is what the TXT record must hold.
	Proof string
	Need  Need
}

// Answers are what DNS says.
type Answers struct {
	// Chain are the names that the name is an alias of, in order; Looped when they lead
	// back to one of them, or to no end.
	Chain  []string
	Looped bool
	// Missing: there is no such name, or the last of Chain does not exist.
	Missing bool
	// Addresses are what it comes to, Ours those of the app's own host and of the edge's name.
	Addresses, Ours []netip.Addr
	// Texts are those at Record.
	Texts []string
}

// Verdict is how the name is the app's, or why not.
type Verdict struct {
	// Method is empty when it is not; see domain.
	Method string
	// Code and Reason say why not.
	Code, Reason string
}

// Judge holds what DNS says against what is wanted.
func Judge(w Wanted, a Answers) Verdict {
	if w.Proof != "" && slices.Contains(a.Texts, w.Proof) {
		return Verdict{Method: domain.ByTXT}
	}
	v, sure := lead(w, a)
	switch {
	case v.Method == "":
		return v
	case w.Need == Proof:
		return Verdict{Code: domain.ProofMissing, Reason: fmt.Sprintf("another organization has proved %s; if it is yours, make the TXT record %s with the value %s", w.Name, Record(w.Name), w.Proof)}
	case w.Need == Sure && !sure:
		return Verdict{Code: domain.ProofMissing, Reason: fmt.Sprintf("%s leads here, and another organization has added it too: make it a CNAME for %s, or make the TXT record %s with the value %s", w.Name, w.Target, Record(w.Name), w.Proof)}
	}
	return v
}

// lead judges where the name leads to; sure is true when that is this app and no other.
func lead(w Wanted, a Answers) (v Verdict, sure bool) {
	through := func(name string) bool { return name != "" && slices.Contains(a.Chain, name) }
	elsewhere := func(to string) Verdict {
		return Verdict{Code: domain.ResolvesElsewhere, Reason: fmt.Sprintf("%s leads to %s; make it lead to %s", w.Name, to, w.Target)}
	}
	if a.Looped {
		return Verdict{Code: domain.Loops, Reason: fmt.Sprintf("%s is an alias that leads round in a circle: %s; make it a CNAME for %s, and that no alias of it",
			w.Name, strings.Join(append([]string{w.Name}, a.Chain...), " → "), w.Target)}, false
	}
	if through(w.Target) {
		return Verdict{Method: domain.ByCNAME}, true
	}
	if through(w.Edge) {
		return Verdict{Method: domain.ByCNAME}, false
	}
	if i := slices.IndexFunc(a.Chain, func(n string) bool { return domainname.Within(n, w.Base) }); i >= 0 {
		return elsewhere(a.Chain[i] + ", which is another app's host"), false
	}
	switch {
	case a.Missing && len(a.Chain) > 0:
		return Verdict{Code: domain.NotFound, Reason: fmt.Sprintf("%s leads to %s, which does not exist; make it lead to %s", w.Name, a.Chain[len(a.Chain)-1], w.Target)}, false
	case a.Missing || len(a.Addresses) == 0:
		return Verdict{Code: domain.NotFound, Reason: fmt.Sprintf("DNS has no record of %s yet; make it a CNAME for %s (a new record may take as long to be seen as the old answer was to be kept)", w.Name, w.Target)}, false
	}
	var others []string
	for _, address := range a.Addresses {
		if !slices.Contains(w.Addresses, address) && !slices.Contains(a.Ours, address) {
			others = append(others, address.String())
		}
	}
	if len(others) == 0 {
		return Verdict{Method: domain.ByAddress}, false
	}
	slices.Sort(others)
	to := strings.Join(others[:min(len(others), mostNamed)], ", ")
	if len(others) > mostNamed {
		to += fmt.Sprintf(" and %d more", len(others)-mostNamed)
	}
	return elsewhere(to), false
}

// mostNamed bounds the addresses that a reason names.
const mostNamed = 4
