package identity

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/access"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/rpc"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/identity/apikey"
)

const (
	// keyPrefix lets scanners of leaked secrets know whose key it is.
	keyPrefix = "slk_"
	// shownKey is how much of a key people know it by, in characters.
	shownKey = len(keyPrefix) + 8
	// maxKeys bounds the keys of one organization.
	maxKeys = 100
)

// keys answers ApiKeyService.
type keys struct {
	identityv1.UnimplementedApiKeyServiceServer
	*Service
}

// CreateApiKey implements identityv1.ApiKeyServiceServer.
func (s keys) CreateApiKey(ctx context.Context, in *identityv1.CreateApiKeyRequest) (*identityv1.CreateApiKeyResponse, error) {
	p, err := s.ofOrg(ctx)
	if err != nil {
		return nil, err
	}
	id := rpc.NewID(ctx, subjects.APIKey)
	raw, err := s.secrets.random(ctx, "api-key", p.GetOrgId()+" "+p.GetOperatorId())
	if err != nil {
		return nil, s.answer(ctx, "create an API key", err)
	}
	key := keyPrefix + base64.RawURLEncoding.EncodeToString(raw[:])
	done, made, err := before(ctx, s.keys, subjects.Of(p.GetOrgId(), subjects.APIKey, id))
	state := done.State
	switch {
	case err != nil:
	case made:
		err = s.seen(ctx, done.Sequence)
	default:
		state, err = s.createKey(ctx, p, id, key, in)
	}
	if err != nil {
		return nil, s.answer(ctx, "create an API key", err)
	}
	return &identityv1.CreateApiKeyResponse{ApiKey: shown(state), Key: key}, nil
}

func (s *Service) createKey(ctx context.Context, p *identityv1.Principal, id, key string, in *identityv1.CreateApiKeyRequest) (apikey.State, error) {
	if err := s.keyFaults(p, in); err != nil {
		return apikey.State{}, err
	}
	if len(s.known.keysOfOrg(p.GetOrgId())) >= maxKeys {
		return apikey.State{}, problem.Limit(fmt.Sprintf("The organization has %d API keys, which is as many as it may have; revoke some first.", maxKeys), 0)
	}
	command := apikey.Create{
		ID: id, Org: p.GetOrgId(), Operator: p.GetOperatorId(), Name: strings.TrimSpace(in.GetName()),
		Prefix: key[:shownKey], KeySHA256: sha256.Sum256([]byte(key)), Scopes: distinct(in.GetScopes()),
	}
	if in.GetExpiresAt() != nil {
		command.ExpiresAt = in.GetExpiresAt().AsTime()
	}
	return s.changeKey(ctx, p, id, command)
}

// ofOrg is who calls, when they may manage the keys of the organization they act for.
func (s *Service) ofOrg(ctx context.Context) (*identityv1.Principal, error) {
	p, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	p, _, err = s.within(ctx, p.GetOrgId(), access.RoleAdmin)
	return p, err
}

func (s *Service) keyFaults(p *identityv1.Principal, in *identityv1.CreateApiKeyRequest) error {
	var faults fields
	faults.add(printable(in.GetName(), 64), "name", "must have 1 to 64 printable characters")
	faults.add(len(in.GetScopes()) > 0, "scopes", "must name at least one of "+strings.Join(access.Scopes(), ", "))
	for _, scope := range distinct(in.GetScopes()) {
		switch {
		case len(faults) > 8:
		case !access.Known(scope):
			faults.add(false, "scopes", "must be among "+strings.Join(access.Scopes(), ", "))
		case !access.Holds(p.GetScopes(), scope):
			faults.add(false, "scopes", "cannot hold "+scope+", which you may not use yourself")
		}
	}
	if at := in.GetExpiresAt(); at != nil {
		faults.add(at.IsValid() && at.AsTime().After(s.deps.Now()), "expires_at", "must be in the future; leave it out for a key that does not expire")
	}
	return faults.err()
}

func distinct(all []string) []string {
	sorted := slices.Clone(all)
	slices.Sort(sorted)
	return slices.Compact(sorted)
}

func (s *Service) changeKey(ctx context.Context, p *identityv1.Principal, id string, c apikey.Command) (apikey.State, error) {
	again := rpc.CommandID(ctx)
	result, err := s.keys.Handle(ctx, decider.Command[apikey.Command]{
		Aggregate: subjects.Of(p.GetOrgId(), subjects.APIKey, id), Command: c, Actor: p.GetOperatorId(), ID: again, Again: again != "",
	})
	if err != nil {
		return apikey.State{}, fmt.Errorf("%T: %w", c, err)
	}
	return result.State, s.seen(ctx, result.Sequence)
}

func shown(k apikey.State) *identityv1.ApiKey {
	out := &identityv1.ApiKey{
		Id: k.ID, Name: k.Name, Prefix: k.Prefix, Scopes: k.Scopes, CreatedBy: k.Operator, CreatedAt: millis(k.CreatedAt),
	}
	if !k.ExpiresAt.IsZero() {
		out.ExpiresAt = millis(k.ExpiresAt)
	}
	if !k.LastUsed.IsZero() {
		out.LastUsedAt = millis(k.LastUsed)
	}
	return out
}

// ListApiKeys implements identityv1.ApiKeyServiceServer.
func (s keys) ListApiKeys(ctx context.Context, _ *identityv1.ListApiKeysRequest) (*identityv1.ListApiKeysResponse, error) {
	p, err := s.ofOrg(ctx)
	if err != nil {
		return nil, err
	}
	res := &identityv1.ListApiKeysResponse{}
	for _, k := range s.known.keysOfOrg(p.GetOrgId()) {
		res.ApiKeys = append(res.ApiKeys, shown(k))
	}
	slices.SortFunc(res.ApiKeys, func(a, b *identityv1.ApiKey) int {
		return cmp.Or(a.GetCreatedAt().AsTime().Compare(b.GetCreatedAt().AsTime()), cmp.Compare(a.Id, b.Id))
	})
	return res, nil
}

// RevokeApiKey implements identityv1.ApiKeyServiceServer.
func (s keys) RevokeApiKey(ctx context.Context, in *identityv1.RevokeApiKeyRequest) (*identityv1.RevokeApiKeyResponse, error) {
	p, err := s.ofOrg(ctx)
	if err != nil {
		return nil, err
	}
	none := problem.NotFound("There is no such API key in this organization; GET /api/v1/api-keys lists them.")
	if !subjects.ValidToken(in.GetId()) {
		return nil, none
	}
	_, err = s.changeKey(ctx, p, in.GetId(), apikey.Revoke{})
	if errors.Is(err, apikey.ErrUnknown) {
		return nil, none
	}
	if err != nil {
		return nil, s.answer(ctx, "revoke an API key", err)
	}
	return &identityv1.RevokeApiKeyResponse{Message: "Revoked"}, nil
}

// maxUses bounds keys whose use waits to be noted.
const maxUses = 256

// uses are keys that were used and whose day is not in the log yet.
type uses struct {
	mu      sync.Mutex
	pending map[subjects.Aggregate]bool
	noted   map[subjects.Aggregate]time.Time // the day that is in the log
	waiting chan subjects.Aggregate
	now     func() time.Time
}

func newUses(now func() time.Time) *uses {
	return &uses{pending: map[subjects.Aggregate]bool{}, noted: map[subjects.Aggregate]time.Time{}, waiting: make(chan subjects.Aggregate, maxUses), now: now}
}

// used notes a use, soon and at most once a day for each key. It never waits.
func (u *uses) used(key subjects.Aggregate) {
	day := u.now().UTC().Truncate(24 * time.Hour)
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.pending[key] || u.noted[key].Equal(day) {
		return
	}
	select {
	case u.waiting <- key:
		u.pending[key] = true
	default:
	}
}

func (u *uses) done(key subjects.Aggregate, written bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.pending, key)
	if !written {
		return
	}
	if len(u.noted) > 10*maxUses {
		clear(u.noted)
	}
	u.noted[key] = u.now().UTC().Truncate(24 * time.Hour)
}

// noteUses writes the days of uses to the log until ctx ends.
func (s *Service) noteUses(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case key := <-s.uses.waiting:
			_, err := s.keys.Handle(ctx, decider.Command[apikey.Command]{Aggregate: key, Command: apikey.Use{}})
			if err != nil && !errors.Is(err, apikey.ErrUnknown) && ctx.Err() == nil {
				s.deps.Log.WarnContext(ctx, "a key's use was not noted", "key", key.ID, "error", err)
			}
			s.uses.done(key, err == nil)
		}
	}
}
