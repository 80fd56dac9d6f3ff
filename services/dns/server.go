package dns

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	dnsv1 "github.com/slipway-paas/slipway/gen/slipway/dns/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/caller"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/dns/tunnel"
	"github.com/slipway-paas/slipway/services/dns/wanted"
	"github.com/slipway-paas/slipway/services/dns/zone"
)

// What answers when something is done waits so long for it; the gateway waits longer.
const (
	syncTime   = 20 * time.Second
	tunnelTime = 20 * time.Second
	// maxTunnels bounds those of one platform.
	maxTunnels = 20
)

// server answers those who run the platform. Who may ask is the gateway's to check.
type server struct {
	dnsv1.UnimplementedDNSAdminServiceServer
	*Service
}

func (s server) ready() error {
	if s.Ready() != nil {
		return problem.Unavailable("Slipway is starting and does not know its domains yet; try again in a second.", time.Second)
	}
	return nil
}

// able is nil when there is a provider to ask.
func (s server) able() error {
	if err := s.ready(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.provider == nil {
		return problem.InvalidState(noToken)
	}
	return nil
}

// by is the operator who calls; empty when it is not said.
func by(ctx context.Context) string {
	p := &identityv1.Principal{}
	if caller.Incoming(ctx, p) != nil {
		return ""
	}
	return p.GetOperatorId()
}

// answer makes an error of the inside one for the outside.
func (s server) answer(ctx context.Context, doing string, err error) error {
	var own *problem.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return own
	case errors.Is(err, tunnel.ErrUnknown), errors.Is(err, seal.ErrDestroyed):
		return noTunnel()
	case errors.Is(err, tunnel.ErrDeleting):
		return problem.InvalidState("The tunnel of that name is being deleted; wait until it is gone, or take another name.")
	case errors.Is(err, eventstore.ErrConflict):
		return problem.Conflict("Others are changing the same at the same time; look at it, and try again.")
	case errors.Is(err, eventstore.ErrUnavailable):
		return problem.Unavailable("The event log is not answering; whether it was done is not known. Look, and try again.", time.Second)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	s.deps.Log.ErrorContext(ctx, "could not "+doing, "error", err)
	return problem.From(err)
}

func noTunnel() error {
	return problem.NotFound("There is no such tunnel; GET /api/v1/admin/dns/tunnels lists them.")
}

func count(n int) uint32 { return uint32(min(max(0, n), math.MaxInt32)) }

// GetDNS implements dnsv1.DNSAdminServiceServer.
func (s server) GetDNS(context.Context, *dnsv1.GetDNSRequest) (*dnsv1.GetDNSResponse, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	st, p := s.standing, s.provider
	s.mu.Unlock()
	res := &dnsv1.GetDNSResponse{
		Provider: "none", Trouble: st.trouble, Wanted: count(st.wanted), Applied: count(st.applied), Failed: count(st.failed),
	}
	if p != nil {
		res.Provider = p.Name()
	}
	if !st.comparedAt.IsZero() {
		res.ComparedAt = timestamppb.New(st.comparedAt)
	}
	for _, apex := range st.zones {
		use := s.policy.Use[apex]
		switch use {
		case "":
			use = "platform"
		case wanted.Shared:
			use = "shared"
		}
		res.Zones = append(res.Zones, &dnsv1.DNSZone{Name: apex, Use: use})
	}
	for _, f := range st.failures {
		shown := &dnsv1.DNSFailure{Name: f.Name, Type: f.Type, Content: f.Content, Code: f.code, Reason: f.reason, Org: f.Org}
		if f.Org == subjects.Platform {
			shown.Org = ""
		}
		res.Failures = append(res.Failures, shown)
	}
	return res, nil
}

// SyncDNS implements dnsv1.DNSAdminServiceServer.
func (s server) SyncDNS(ctx context.Context, _ *dnsv1.SyncDNSRequest) (*dnsv1.SyncDNSResponse, error) {
	if err := s.able(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, syncTime)
	defer cancel()
	s.compare(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	res := &dnsv1.SyncDNSResponse{
		Wanted: count(s.standing.wanted), Applied: count(s.standing.applied), Failed: count(s.standing.failed), Trouble: s.standing.trouble,
	}
	if ctx.Err() != nil && res.Trouble == "" {
		res.Trouble = "The comparison is still under way; the provider is slow or limits the rate."
	}
	return res, nil
}

func shown(t tunnel.State) *dnsv1.Tunnel {
	return &dnsv1.Tunnel{
		Name: t.Name, TunnelId: t.TunnelID, Status: t.Status, Reason: t.Reason, Hostnames: t.Hostnames, Service: t.Service,
		RequestedAt: timestamppb.New(t.RequestedAt),
	}
}

// ListTunnels implements dnsv1.DNSAdminServiceServer.
func (s server) ListTunnels(context.Context, *dnsv1.ListTunnelsRequest) (*dnsv1.ListTunnelsResponse, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	res := &dnsv1.ListTunnelsResponse{}
	for _, t := range s.state.Tunnels() {
		res.Tunnels = append(res.Tunnels, shown(t))
	}
	return res, nil
}

// faults says what is wrong with a tunnel that is asked for, and fills in what is left out.
func (s server) faults(ctx context.Context, in *dnsv1.CreateTunnelRequest) (hostnames []string, service string, err error) {
	// Not those of the last round: there may have been none yet.
	zones, err := s.held(ctx, false)
	if err != nil {
		return nil, "", problem.Unavailable("Which zones the platform holds is not known yet: "+err.Error(), time.Second)
	}
	apexes := make([]string, len(zones))
	for i, z := range zones {
		apexes[i] = z.Name()
	}
	var faults []problem.Field
	if !tunnel.ValidName(in.GetName()) {
		faults = append(faults, problem.Field{Field: "name", Message: "must have 1 to 32 lowercase letters, digits and hyphens, and no hyphen at an end"})
	}
	if hostnames = in.GetHostnames(); len(hostnames) == 0 {
		hostnames = []string{s.policy.BaseDomain, "*." + s.policy.BaseDomain}
	}
	if len(hostnames) > tunnel.MaxHostnames {
		faults = append(faults, problem.Field{Field: "hostnames", Message: fmt.Sprintf("must be at most %d", tunnel.MaxHostnames)})
		hostnames = nil
	}
	s.mu.Lock()
	others := s.state.Tunnels()
	s.mu.Unlock()
	for i, host := range hostnames {
		host = strings.ToLower(host)
		switch {
		case !hostname.MatchString(host) || len(host) > 253:
			faults = append(faults, problem.Field{Field: "hostnames", Message: fmt.Sprintf("%q is no host name", host)})
		case zone.Holding(host, apexes) == "":
			faults = append(faults, problem.Field{Field: "hostnames", Message: fmt.Sprintf("%s is in none of the zones that this platform holds", host)})
		case slices.Contains(hostnames[:i], host):
			faults = append(faults, problem.Field{Field: "hostnames", Message: host + " is there twice"})
		}
		for _, t := range others {
			if t.Name != in.GetName() && slices.Contains(t.Hostnames, host) {
				faults = append(faults, problem.Field{Field: "hostnames", Message: fmt.Sprintf("%s leads through the tunnel %s already", host, t.Name)})
			}
		}
	}
	if service = in.GetService(); service == "" {
		service = s.config.TunnelService
	}
	if why := badService(service); why != "" {
		faults = append(faults, problem.Field{Field: "service", Message: why})
	}
	if len(faults) > 0 {
		return nil, "", problem.Validation(faults)
	}
	lower := make([]string, len(hostnames))
	for i, host := range hostnames {
		lower[i] = strings.ToLower(host)
	}
	return lower, service, nil
}

// CreateTunnel implements dnsv1.DNSAdminServiceServer.
func (s server) CreateTunnel(ctx context.Context, in *dnsv1.CreateTunnelRequest) (*dnsv1.CreateTunnelResponse, error) {
	if err := s.able(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	all := len(s.state.Tunnels())
	known := s.state.Tunnel(in.GetName()).Live()
	s.mu.Unlock()
	if all >= maxTunnels && !known {
		return nil, problem.Limit(fmt.Sprintf("The platform has %d tunnels, which is as many as it may have; delete some first.", maxTunnels), 0)
	}
	hostnames, service, err := s.faults(ctx, in)
	if err != nil {
		return nil, err
	}
	operator := by(ctx)
	if err := s.commandTunnel(ctx, in.GetName(), tunnel.Request{Name: in.GetName(), Service: service, By: operator, Hostnames: hostnames}, operator); err != nil {
		return nil, s.answer(ctx, "create a tunnel", err)
	}
	bounded, cancel := context.WithTimeout(ctx, tunnelTime)
	defer cancel()
	var t tunnel.State
	s.until(bounded, func(st *wanted.State) bool {
		t = st.Tunnel(in.GetName())
		return t.Status != tunnel.Pending
	})
	return &dnsv1.CreateTunnelResponse{Tunnel: shown(t)}, nil
}

// DeleteTunnel implements dnsv1.DNSAdminServiceServer.
func (s server) DeleteTunnel(ctx context.Context, in *dnsv1.DeleteTunnelRequest) (*dnsv1.DeleteTunnelResponse, error) {
	if err := s.able(); err != nil {
		return nil, err
	}
	if !tunnel.ValidName(in.GetName()) {
		return nil, noTunnel()
	}
	operator := by(ctx)
	if err := s.commandTunnel(ctx, in.GetName(), tunnel.Delete{By: operator}, operator); err != nil {
		return nil, s.answer(ctx, "delete a tunnel", err)
	}
	bounded, cancel := context.WithTimeout(ctx, tunnelTime)
	defer cancel()
	var t tunnel.State
	s.until(bounded, func(st *wanted.State) bool {
		t = st.Tunnel(in.GetName())
		return !t.Live() || t.Code != ""
	})
	if t.Live() {
		return &dnsv1.DeleteTunnelResponse{Message: strings.TrimSpace("It is being deleted, and gone as soon as the provider does it. " + t.Reason)}, nil
	}
	return &dnsv1.DeleteTunnelResponse{Message: "Deleted"}, nil
}

// RevealTunnelToken implements dnsv1.DNSAdminServiceServer.
func (s server) RevealTunnelToken(ctx context.Context, in *dnsv1.RevealTunnelTokenRequest) (*dnsv1.RevealTunnelTokenResponse, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	t := s.state.Tunnel(in.GetName())
	s.mu.Unlock()
	switch {
	case !t.Wanted():
		return nil, noTunnel()
	case len(t.Token) == 0:
		return nil, problem.InvalidState("The tunnel is not made yet, so that it has no token; slipway admin dns tunnels list says why.")
	}
	values, err := s.deps.Seal.Open(ctx, sealedFor(t.TunnelID), t.Token)
	if err != nil {
		return nil, s.answer(ctx, "show a tunnel's token", err)
	}
	s.deps.Log.InfoContext(ctx, "a tunnel's token was shown", "tunnel", t.Name, "operator", by(ctx))
	return &dnsv1.RevealTunnelTokenResponse{Token: values["token"], Command: "TUNNEL_TOKEN=… cloudflared tunnel run"}, nil
}
