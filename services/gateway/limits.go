package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/gateway/oauth"
	"github.com/slipway-paas/slipway/services/gateway/ratelimit"
)

// RateLimits are how many requests a minute are answered; 0 does not limit.
type RateLimits struct {
	// Reads and Writes are of one operator to one endpoint.
	Reads  int `koanf:"reads" default:"30" usage:"GETs a minute that one operator may send to one endpoint; 0 for no limit"`
	Writes int `koanf:"writes" default:"10" usage:"other requests a minute that one operator may send to one endpoint; 0 for no limit"`
	// SignIns are of one client address to one endpoint that needs no token.
	SignIns int `koanf:"sign-ins" default:"10" usage:"requests a minute that one address may send to login, registration and the like; 0 for no limit"`
	// TrustedProxies are networks whose X-Forwarded-For is believed.
	TrustedProxies []string `koanf:"trusted-proxies" usage:"networks (CIDR) of proxies whose X-Forwarded-For is believed"`
}

// limitWindow is what quotas are counted over.
const limitWindow = time.Minute

// maxQuota is more than any machine answers in a minute.
const maxQuota = 1_000_000_000

// Validate says what is wrong with the limits.
func (l RateLimits) Validate() error {
	var errs []error
	for name, quota := range map[string]int{"reads": l.Reads, "writes": l.Writes, "sign-ins": l.SignIns} {
		if quota < 0 || quota > maxQuota {
			errs = append(errs, fmt.Errorf("--rate-limits-%s: %d must be from 0, for no limit, to %d", name, quota, maxQuota))
		}
	}
	if _, err := l.proxies(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (l RateLimits) proxies() ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, text := range l.TrustedProxies {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("--rate-limits-trusted-proxies: %q is no network such as 10.0.0.0/8", text)
		}
		all = append(all, prefix.Masked())
	}
	return all, nil
}

// signInPaths begin the paths whose POSTs are for people without a token yet.
var signInPaths = []string{"/api/v1/auth/", "/api/auth/"}

// signInPages are those of OAuth that take a guess at a password or a device's code, or
// write to the log for whoever comes.
var signInPages = []string{oauth.PathSignIn, oauth.PathDevice, oauth.PathDeviceCode}

// unlimited are gRPC methods without a token that tell nothing worth guessing.
var unlimited = []string{"/grpc.health.", "/grpc.reflection."}

// limits says how often who may call what, over REST and gRPC alike.
type limits struct {
	limiter *ratelimit.Limiter
	// writes are the gRPC methods that REST has another method than GET for.
	writes              map[string]bool
	read, write, signIn ratelimit.Policy
	proxies             []netip.Prefix
}

func newLimits(l RateLimits, limiter *ratelimit.Limiter, all []route) (*limits, error) {
	proxies, err := l.proxies()
	if err != nil {
		return nil, err
	}
	policy := func(name string, quota int) ratelimit.Policy {
		return ratelimit.Policy{Name: name, Quota: uint64(quota), Window: limitWindow}
	}
	writes := map[string]bool{}
	for _, rt := range all {
		writes[rt.rpc] = rt.method != http.MethodGet
	}
	return &limits{
		limiter: limiter, writes: writes, proxies: proxies,
		read: policy("reads", l.Reads), write: policy("writes", l.Writes), signIn: policy("sign-ins", l.SignIns),
	}, nil
}

// operator counts a call of one who has a token.
func (l *limits) operator(ctx context.Context, p *identityv1.Principal, rpc string) ratelimit.Verdict {
	policy := l.read
	if l.writes[rpc] {
		policy = l.write
	}
	return l.limiter.Take(ctx, ratelimit.Key{Who: p.GetOperatorId(), Endpoint: rpc}, policy)
}

// address counts a call of one who needs no token.
func (l *limits) address(ctx context.Context, from netip.Addr, endpoint string) ratelimit.Verdict {
	return l.limiter.Take(ctx, ratelimit.Key{Who: "@" + network(from), Endpoint: endpoint}, l.signIn)
}

// network is the address, or for IPv6 the network that one customer has.
func network(a netip.Addr) string {
	if a.Is6() {
		if prefix, err := a.WithZone("").Prefix(64); err == nil {
			return prefix.String()
		}
	}
	return a.String()
}

// client is where a request came from: the last address of X-Forwarded-For that is
// no trusted proxy's, when the connection is a trusted proxy's.
func (l *limits) client(remote string, forwarded []string) netip.Addr {
	connection, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	from := connection.Addr().Unmap()
	hops := strings.Split(strings.Join(forwarded, ","), ",")
	for i := len(hops) - 1; i >= 0 && l.trusted(from); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		from = hop.Unmap()
	}
	return from
}

func (l *limits) trusted(a netip.Addr) bool {
	for _, p := range l.proxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// signInPath returns the endpoint that a POST without a token goes to.
func signInPath(r *http.Request, pattern string) (endpoint string, ok bool) {
	if r.Method != http.MethodPost {
		return "", false
	}
	if slices.Contains(signInPages, r.URL.Path) {
		return r.URL.Path, true
	}
	for _, begin := range signInPaths {
		if strings.HasPrefix(r.URL.Path, begin) {
			// Of paths that there are not, all are one.
			return cmp.Or(pattern, begin), true
		}
	}
	return "", false
}

// refusal is the answer to what is not let through; nil for what is.
func refusal(v ratelimit.Verdict) error {
	if v.Allowed {
		return nil
	}
	wait := v.RetryAfter()
	return &problem.Error{
		Status: http.StatusTooManyRequests, Code: "rate_limited", RetryAfter: wait,
		Message: fmt.Sprintf("Too many requests: this endpoint takes %d a minute from you; try again in %d seconds.", v.Policy.Quota, int(wait/time.Second)),
	}
}

// limitREST counts a request whose caller is known, nil for none.
func (d *door) limitREST(w http.ResponseWriter, r *http.Request, p *identityv1.Principal, rpc string) error {
	var v ratelimit.Verdict
	switch {
	case p != nil:
		v = d.limits.operator(r.Context(), p, rpc)
	default:
		if _, counted := signInPath(r, ""); counted {
			return nil
		}
		v = d.limits.address(r.Context(), d.limits.client(r.RemoteAddr, r.Header["X-Forwarded-For"]), rpc)
	}
	v.Write(w.Header())
	return refusal(v)
}

// limitSignIn counts a request to a path that needs no token.
func (d *door) limitSignIn(w http.ResponseWriter, r *http.Request, pattern string) error {
	endpoint, ok := signInPath(r, pattern)
	if !ok {
		return nil
	}
	v := d.limits.address(r.Context(), d.limits.client(r.RemoteAddr, r.Header["X-Forwarded-For"]), endpoint)
	v.Write(w.Header())
	return refusal(v)
}

// call counts a gRPC call whose caller is known, nil for none.
func (l *limits) call(ctx context.Context, p *identityv1.Principal, rpc string) error {
	var v ratelimit.Verdict
	switch {
	case p != nil:
		v = l.operator(ctx, p, rpc)
	default:
		for _, begin := range unlimited {
			if strings.HasPrefix(rpc, begin) {
				return nil
			}
		}
		remote := ""
		if from, ok := peer.FromContext(ctx); ok {
			remote = from.Addr.String()
		}
		v = l.address(ctx, l.client(remote, metadata.ValueFromIncomingContext(ctx, "x-forwarded-for")), rpc)
	}
	if v.Policy.Quota > 0 {
		policy, left := v.Fields()
		if err := grpc.SetHeader(ctx, metadata.Pairs("ratelimit-policy", policy, "ratelimit", left)); err != nil {
			return fmt.Errorf("say what is left of a rate limit: %w", err)
		}
	}
	return refusal(v)
}
