package oauth

import (
	"context"
	"maps"
	"net/http"
	"time"

	"github.com/google/uuid"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/identity/device"
	"github.com/slipway-paas/slipway/services/identity/grant"
	"github.com/slipway-paas/slipway/services/identity/oauthapp"
	"github.com/slipway-paas/slipway/services/identity/scope"
)

// maxWaiting bounds how many devices wait at once: anybody may start one.
const maxWaiting = 1000

// patience is how much too early a device may ask: clocks and networks are not exact.
const patience = time.Second

// StartDevice implements identityv1.OAuthServiceServer.
func (s *Server) StartDevice(ctx context.Context, req *identityv1.StartDeviceRequest) (*identityv1.StartDeviceResponse, error) {
	app, err := s.find(req.GetClientId())
	if err != nil {
		return nil, err
	}
	scopes := req.GetScopes()
	switch {
	case app.ClientID != oauthapp.CommandLine:
		return nil, refused(http.StatusBadRequest, "unauthorized_client", "This app may not use the device flow.")
	case len(scopes) == 0 || !scope.Within(scopes, app.Scopes):
		return nil, refused(http.StatusBadRequest, "invalid_scope", "Name at least one scope that there is.")
	case s.known.numWaiting(s.deps.Now()) >= maxWaiting:
		return nil, problem.Unavailable("Too many devices wait to be let in; try again in a minute.", time.Minute)
	}
	a := subjects.Of(subjects.Platform, subjects.Device, uuid.Must(uuid.NewV7()).String())
	deviceCode, deviceHash := newAddressed(prefixDevice, a)
	userCode, userHash := newUserCode()
	for _, taken := s.known.waiting(userHash, s.deps.Now()); taken; _, taken = s.known.waiting(userHash, s.deps.Now()) {
		userCode, userHash = newUserCode()
	}
	done, err := s.devices.Handle(ctx, command[device.Command](ctx, a, app.ClientID, device.Start{
		ID: a.ID, ClientID: app.ClientID, ClientName: app.Name, Scopes: scopes, DeviceCode: deviceHash, UserCode: userHash,
	}))
	if err != nil {
		return nil, s.failed(ctx, "let a device wait", err)
	}
	s.wait(ctx, done.Sequence)
	return &identityv1.StartDeviceResponse{
		DeviceCode: deviceCode, UserCode: userCode,
		ExpiresInSeconds: uint32(device.For / time.Second), IntervalSeconds: uint32(device.Interval / time.Second),
	}, nil
}

// GetDevice implements identityv1.OAuthServiceServer.
func (s *Server) GetDevice(_ context.Context, req *identityv1.GetDeviceRequest) (*identityv1.GetDeviceResponse, error) {
	d, err := s.waiting(req.GetUserCode())
	if err != nil {
		return nil, err
	}
	return &identityv1.GetDeviceResponse{ClientId: d.ClientID, ClientName: d.ClientName, Scopes: d.Scopes}, nil
}

func (s *Server) waiting(userCode string) (device.State, error) {
	if err := s.deps.Ready(); err != nil {
		return device.State{}, problem.Unavailable("Slipway is starting; try again in a second.", time.Second)
	}
	d, ok := s.known.waiting(hashUserCode(userCode), s.deps.Now())
	if !ok {
		return device.State{}, problem.NotFound("This code is not known, was used already, or has expired; start again on the device.")
	}
	return d, nil
}

// DecideDevice implements identityv1.OAuthServiceServer.
func (s *Server) DecideDevice(ctx context.Context, req *identityv1.DecideDeviceRequest) (*identityv1.DecideDeviceResponse, error) {
	p := req.GetPrincipal()
	if err := checkPrincipal(p); err != nil {
		return nil, err
	}
	d, err := s.waiting(req.GetUserCode())
	if err != nil {
		return nil, err
	}
	var c device.Command = device.Deny{OperatorID: p.GetOperatorId()}
	if req.GetApprove() {
		app, err := s.find(d.ClientID)
		if err != nil {
			return nil, err
		}
		if err := s.mayGrant(p, app, req.GetScopes()); err != nil {
			return nil, err
		}
		c = device.Approve{OperatorID: p.GetOperatorId(), OrgID: p.GetOrgId(), Scopes: req.GetScopes(), PasswordEpoch: s.deps.People.PasswordEpoch(p.GetOperatorId())}
	}
	done, err := s.devices.Handle(ctx, command(ctx, subjects.Of(subjects.Platform, subjects.Device, d.ID), p.GetOperatorId(), c))
	if err != nil {
		return nil, s.failed(ctx, "decide on a device", err)
	}
	s.wait(ctx, done.Sequence)
	return &identityv1.DecideDeviceResponse{}, nil
}

// RedeemDeviceCode implements identityv1.OAuthServiceServer.
func (s *Server) RedeemDeviceCode(ctx context.Context, req *identityv1.RedeemDeviceCodeRequest) (*identityv1.RedeemDeviceCodeResponse, error) {
	a, hash, ok := addressed(prefixDevice, subjects.Device, req.GetDeviceCode())
	if !ok || a.Org != subjects.Platform {
		return nil, grant.Refuse("The device code is not valid; start again.")
	}
	d, _, err := s.devices.Load(ctx, a)
	if err != nil {
		return nil, s.failed(ctx, "look at a device", err)
	}
	now := s.deps.Now()
	if err := d.Redeemable(req.GetClientId(), hash, now); err != nil {
		if problem.From(err).Code == device.CodePending && s.tooSoon(d.ID, now) {
			err = refused(http.StatusBadRequest, device.CodeSlowDown, "You ask too often; wait five seconds more each time.")
		}
		return nil, err
	}
	if !s.deps.People.Stands(d.OperatorID, d.OrgID, d.PasswordEpoch) {
		return nil, noMore()
	}
	// The grant has the device's id: it can be opened once.
	g := subjects.Of(d.OrgID, subjects.Grant, d.ID)
	fresh := newPair(g)
	done, err := s.grants.Handle(ctx, command[grant.Command](ctx, g, d.OperatorID, grant.OpenForDevice{
		ID: g.ID, OrgID: g.Org, OperatorID: d.OperatorID, ClientID: d.ClientID, ClientName: d.ClientName,
		Scopes: d.Scopes, DeviceID: d.ID, Tokens: fresh.hashes, PasswordEpoch: d.PasswordEpoch,
	}))
	if err != nil {
		return nil, s.failed(ctx, "redeem a device code", err)
	}
	tokens, err := s.issued(ctx, done, fresh)
	return &identityv1.RedeemDeviceCodeResponse{Tokens: tokens}, err
}

// tooSoon notes that a device asks, and reports whether it did so a moment ago.
func (s *Server) tooSoon(id string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.asked) > 2*maxWaiting {
		maps.DeleteFunc(s.asked, func(_ string, at time.Time) bool { return now.Sub(at) > device.For })
	}
	before, ok := s.asked[id]
	s.asked[id] = now
	return ok && now.Sub(before) < device.Interval-patience
}
