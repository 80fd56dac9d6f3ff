// Package resolver asks DNS about the names that users bring.
package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/slipway-paas/slipway/services/domains/proof"
)

const (
	// mostAliases is how long a chain may be; longer ones count as loops.
	mostAliases = 10
	// maxAddresses and maxTexts bound what is kept of an answer.
	maxAddresses = 32
	maxTexts     = 64
	// exchangeTimeout bounds one question to one server.
	exchangeTimeout = 3 * time.Second
	// systemConfig is where the system says whom to ask.
	systemConfig = "/etc/resolv.conf"
)

// ErrUnavailable is returned when no server gave an answer that can be used: it says
// nothing of the name.
var ErrUnavailable = errors.New("DNS does not answer")

// Resolver asks servers, one after the other until one answers.
type Resolver struct {
	server  string // empty for the system's
	timeout time.Duration
}

// New asks the server at host:port, the system's when that is empty.
func New(server string) (*Resolver, error) {
	if server != "" {
		if _, _, err := net.SplitHostPort(server); err != nil {
			return nil, fmt.Errorf("%q is no host:port, like 192.0.2.53:53: %w", server, err)
		}
	}
	return &Resolver{server: server, timeout: exchangeTimeout}, nil
}

// servers are read each time: the system's change while we run.
func (r *Resolver) servers() ([]string, error) {
	if r.server != "" {
		return []string{r.server}, nil
	}
	system, err := dns.ClientConfigFromFile(systemConfig)
	if err != nil {
		return nil, fmt.Errorf("%w: reading whom to ask: %w", ErrUnavailable, err)
	}
	var all []string
	for _, host := range system.Servers {
		all = append(all, net.JoinHostPort(host, system.Port))
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: %s names no server", ErrUnavailable, systemConfig)
	}
	return all, nil
}

// Look asks all that it takes to judge the name. Errors: ErrUnavailable.
func (r *Resolver) Look(ctx context.Context, w proof.Wanted) (proof.Answers, error) {
	var a proof.Answers
	texts, textErr := r.texts(ctx, proof.Record(w.Name))
	a.Texts = texts
	if w.Proof != "" && slices.Contains(texts, w.Proof) {
		return a, nil
	}
	if err := r.follow(ctx, w.Name, &a); err != nil {
		return proof.Answers{}, err
	}
	if a.Looped || slices.Contains(a.Chain, w.Target) {
		return a, needed(w, textErr)
	}
	if !a.Missing {
		var err error
		if a.Addresses, err = r.addresses(ctx, last(w.Name, a.Chain)); err != nil {
			return proof.Answers{}, err
		}
	}
	if slices.ContainsFunc(a.Addresses, func(at netip.Addr) bool { return !slices.Contains(w.Addresses, at) }) {
		if err := r.ours(ctx, w, &a); err != nil {
			return proof.Answers{}, err
		}
	}
	return a, needed(w, textErr)
}

// needed is the error of looking for the proof, when there is no way round it.
func needed(w proof.Wanted, err error) error {
	if w.Need == proof.Lead {
		return nil
	}
	return err
}

// ours are the addresses of the app's own host and the edge's name: names at the top of
// a zone cannot be aliases, and are given the same ones.
func (r *Resolver) ours(ctx context.Context, w proof.Wanted, a *proof.Answers) error {
	for _, name := range []string{w.Target, w.Edge} {
		if name == "" {
			continue
		}
		addresses, err := r.addresses(ctx, name)
		if err != nil {
			return err
		}
		a.Ours = append(a.Ours, addresses...)
	}
	return nil
}

func last(name string, chain []string) string {
	if len(chain) == 0 {
		return name
	}
	return chain[len(chain)-1]
}

// follow asks for aliases one by one: who asks for addresses is not told of a circle.
func (r *Resolver) follow(ctx context.Context, name string, a *proof.Answers) error {
	seen := map[string]bool{name: true}
	for at := name; ; {
		answer, err := r.ask(ctx, at, dns.TypeCNAME)
		if err != nil {
			return err
		}
		next := ""
		for _, rr := range answer.Answer {
			if alias, ok := rr.(*dns.CNAME); ok && canonical(alias.Hdr.Name) == at {
				next = canonical(alias.Target)
			}
		}
		if next == "" {
			a.Missing = answer.Rcode == dns.RcodeNameError
			return nil
		}
		a.Chain = append(a.Chain, next)
		if seen[next] || len(a.Chain) > mostAliases {
			a.Looped = true
			return nil
		}
		seen[next], at = true, next
	}
}

func (r *Resolver) addresses(ctx context.Context, name string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		answer, err := r.ask(ctx, name, kind)
		if err != nil {
			return nil, err
		}
		for _, rr := range answer.Answer {
			var ip net.IP
			switch rr := rr.(type) {
			case *dns.A:
				ip = rr.A
			case *dns.AAAA:
				ip = rr.AAAA
			}
			if address, ok := netip.AddrFromSlice(ip); ok && len(out) < maxAddresses {
				out = append(out, address.Unmap())
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out), nil
}

func (r *Resolver) texts(ctx context.Context, name string) ([]string, error) {
	answer, err := r.ask(ctx, name, dns.TypeTXT)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, rr := range answer.Answer {
		if text, ok := rr.(*dns.TXT); ok && len(out) < maxTexts {
			out = append(out, strings.TrimSpace(strings.Join(text.Txt, "")))
		}
	}
	return out, nil
}

// ask puts one question to the servers until one answers that there is or is not such a
// record.
func (r *Resolver) ask(ctx context.Context, name string, kind uint16) (*dns.Msg, error) {
	question := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)
	question.SetEdns0(dns.DefaultMsgSize, false)
	servers, err := r.servers()
	if err != nil {
		return nil, err
	}
	var failure error
	for _, server := range servers {
		answer, err := r.exchange(ctx, question, server)
		switch {
		case err != nil:
			failure = errors.Join(failure, err)
		case answer.Rcode == dns.RcodeSuccess, answer.Rcode == dns.RcodeNameError:
			return answer, nil
		default:
			failure = errors.Join(failure, fmt.Errorf("%s answers %s", server, dns.RcodeToString[answer.Rcode]))
		}
	}
	return nil, fmt.Errorf("%w: %s %s: %w", ErrUnavailable, dns.TypeToString[kind], name, failure)
}

func (r *Resolver) exchange(ctx context.Context, question *dns.Msg, server string) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	client := &dns.Client{Net: "udp", UDPSize: dns.DefaultMsgSize, Timeout: r.timeout}
	answer, _, err := client.ExchangeContext(ctx, question, server)
	if err == nil && !answer.Truncated {
		return answer, nil
	}
	// Cut off, or UDP does not get through.
	client.Net = "tcp"
	long, _, tcpErr := client.ExchangeContext(ctx, question, server)
	if tcpErr != nil {
		return nil, fmt.Errorf("ask %s: %w", server, errors.Join(err, tcpErr))
	}
	return long, nil
}

func canonical(name string) string { return strings.TrimSuffix(strings.ToLower(name), ".") }
