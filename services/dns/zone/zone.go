// Package zone is the port to a provider of DNS: what dns needs of zones and tunnels, and
// no more. Package zonetest is the contract that every implementation keeps.
package zone

import (
	"context"
	"errors"
	"strings"
	"time"
)

// What went wrong; errors of implementations wrap one of these.
var (
	// ErrTaken is returned for a record that cannot be made because of one that is there,
	// the very same one included.
	ErrTaken = errors.New("another record has the name")
	// ErrForeign is returned for a record that this platform did not make.
	ErrForeign = errors.New("the record was made by somebody else")
	// ErrGone is returned for what is no longer there.
	ErrGone = errors.New("it is no longer there")
	// ErrRefused is returned for what the provider never accepts.
	ErrRefused = errors.New("the DNS provider refuses it")
	// ErrUnauthorized is returned when the token is not good, or not for this.
	ErrUnauthorized = errors.New("the DNS provider's token may not do this")
	// ErrUnavailable is returned when there was no answer, or none of use: whether a
	// change was made is not known.
	ErrUnavailable = errors.New("the DNS provider does not answer")
	// ErrLimited is an ErrUnavailable of which it is known that nothing was done.
	ErrLimited = errors.New("the DNS provider's rate limit is reached")
)

// AutomaticTTL leaves the TTL to the provider.
const AutomaticTTL = 1

// Types of record that this platform makes.
const (
	A     = "A"
	AAAA  = "AAAA"
	CNAME = "CNAME"
	TXT   = "TXT"
)

// Record is one DNS record.
type Record struct {
	// ID is the provider's; empty for one that is to be made.
	ID string
	// Name is the whole name in ASCII, lower case, without a final dot.
	Name, Type string
	// Content is an address, a name, or the text of a TXT record without quotes.
	Content string
	// TTL is in seconds, or AutomaticTTL.
	TTL     int
	Proxied bool
	// Challenge marks the TXT records of ACME's challenges, which come and go.
	Challenge bool
	// Ours says that this platform made it. It and CreatedAt come with what is read.
	Ours      bool
	CreatedAt time.Time
}

// Zone is one zone that the provider's account holds.
type Zone interface {
	// Name is the zone's apex.
	Name() string
	// Ours are all records that this platform made. What is read may lag behind what
	// was written.
	Ours(ctx context.Context) ([]Record, error)
	// Named are all records of the name, whoever made them.
	Named(ctx context.Context, name string) ([]Record, error)
	// Create makes the record and marks it as this platform's. Errors: ErrTaken,
	// ErrRefused, and of any call ErrUnauthorized, ErrUnavailable, ErrLimited.
	Create(ctx context.Context, r Record) (Record, error)
	// Update gives the record of ours with that ID another content, TTL or proxying.
	// Errors: ErrForeign, ErrGone, ErrTaken, ErrRefused.
	Update(ctx context.Context, r Record) error
	// Delete removes the record of ours; one that is gone already is no error. Errors:
	// ErrForeign.
	Delete(ctx context.Context, r Record) error
}

// Rule sends a hostname through a tunnel to a service; the last rule has no hostname
// and catches the rest.
type Rule struct{ Hostname, Service string }

// NotFound is the service of a rule for what nothing else matches.
const NotFound = "http_status:404"

// Provider holds zones and tunnels.
type Provider interface {
	// Name is the provider's, for people.
	Name() string
	// Zones are those that the token may use.
	Zones(ctx context.Context) ([]Zone, error)
	// Tunnel finds this platform's tunnel of that name; Errors: ErrGone.
	Tunnel(ctx context.Context, name string) (id string, err error)
	// CreateTunnel makes it. Errors: ErrTaken.
	CreateTunnel(ctx context.Context, name string) (id string, err error)
	// TunnelToken is what the tunnel's daemon runs with. Errors: ErrGone.
	TunnelToken(ctx context.Context, id string) (string, error)
	// Ingress is where the tunnel sends hostnames. Errors: ErrGone.
	Ingress(ctx context.Context, id string) ([]Rule, error)
	// SetIngress replaces it. Errors: ErrGone, ErrRefused.
	SetIngress(ctx context.Context, id string, rules []Rule) error
	// DeleteTunnel removes it, there or not.
	DeleteTunnel(ctx context.Context, id string) error
}

// TunnelTarget is the name that leads into a tunnel.
func TunnelTarget(id string) string { return id + ".cfargotunnel.com" }

// Within reports whether the name is the zone's apex or below it.
func Within(name, apex string) bool {
	return apex != "" && (name == apex || strings.HasSuffix(name, "."+apex))
}

// Holding is the apex, of those, of the zone that the name is in: the longest one.
// It is empty when there is none.
func Holding(name string, apexes []string) string {
	longest := ""
	for _, apex := range apexes {
		if Within(name, apex) && len(apex) > len(longest) {
			longest = apex
		}
	}
	return longest
}

// Retryable reports whether the same call may succeed later, with nothing changed by us.
func Retryable(err error) bool {
	return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrLimited) || errors.Is(err, ErrUnauthorized)
}
