package dns

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/dns/tunnel"
	"github.com/slipway-paas/slipway/services/dns/wanted"
	"github.com/slipway-paas/slipway/services/dns/zone"
)

// sealedFor is the aggregate whose data key seals a tunnel's token. It has the
// provider's id, so that a tunnel made again under its old name has a new key.
func sealedFor(tunnelID string) subjects.Aggregate {
	return subjects.Of(subjects.Platform, subjects.Tunnel, tunnelID)
}

// keepTunnels makes those that are missing and gives all the rules that they shall have.
// again says that the provider refused something, which is no reason to leave it alone.
func (s *Service) keepTunnels(ctx context.Context, apexes []string, whole bool) (again bool, err error) {
	s.mu.Lock()
	all := s.state.Tunnels()
	s.mu.Unlock()
	var errs []error
	for _, t := range all {
		if !t.Wanted() {
			continue
		}
		s.mu.Lock()
		rules := s.state.Rules(t, apexes, s.policy)
		s.mu.Unlock()
		if err := s.keepTunnel(ctx, t, rules, whole); err != nil {
			again = true
			errs = append(errs, s.tunnelFailed(ctx, t.Name, err))
		}
	}
	return again, errors.Join(errs...)
}

// tunnelFailed says why, and returns what is for trying again later and later.
func (s *Service) tunnelFailed(ctx context.Context, name string, err error) error {
	if ctx.Err() != nil {
		return err
	}
	said := s.commandTunnel(ctx, name, tunnel.Fail{Code: code(err), Reason: err.Error()}, "")
	if errors.Is(err, zone.ErrRefused) || errors.Is(err, zone.ErrGone) {
		return said
	}
	return errors.Join(fmt.Errorf("tunnel %s: %w", name, err), said)
}

func (s *Service) keepTunnel(ctx context.Context, t tunnel.State, rules []zone.Rule, whole bool) error {
	id := t.TunnelID
	if id == "" || whole {
		found, err := s.provider.Tunnel(ctx, t.Name)
		switch {
		case errors.Is(err, zone.ErrGone) && id != "" && t.Status == tunnel.Ready && s.rounds.missing[t.Name] < unseenTries:
			// A read may be behind.
			s.rounds.missing[t.Name]++
			found = id
		case errors.Is(err, zone.ErrGone):
			if found, err = s.provider.CreateTunnel(ctx, t.Name); errors.Is(err, zone.ErrTaken) {
				return fmt.Errorf("%w: it was made a moment ago and cannot be seen yet", zone.ErrUnavailable)
			}
			if err != nil {
				return err
			}
			delete(s.rounds.missing, t.Name)
		case err != nil:
			return err
		default:
			delete(s.rounds.missing, t.Name)
		}
		id = found
	}
	sum := fmt.Sprint(id, rules)
	if whole || t.Status != tunnel.Ready || s.rounds.ruled[t.Name] != sum {
		there, err := s.provider.Ingress(ctx, id)
		if err == nil && !slices.Equal(there, rules) {
			err = s.provider.SetIngress(ctx, id, rules)
		}
		if err != nil {
			return err
		}
		s.rounds.ruled[t.Name] = sum
	}
	if t.Status == tunnel.Ready && t.TunnelID == id {
		return nil
	}
	token, err := s.provider.TunnelToken(ctx, id)
	if err != nil {
		return err
	}
	_, sealed, err := s.deps.Seal.Seal(ctx, sealedFor(id), map[string]string{"token": token})
	if err != nil {
		return fmt.Errorf("seal its token: %w", err)
	}
	return s.commandTunnel(ctx, t.Name, tunnel.Made{TunnelID: id, Token: sealed}, "")
}

// dropTunnels deletes those that shall go. It is called when no record leads to them;
// again is as in keepTunnels.
func (s *Service) dropTunnels(ctx context.Context) (again bool, err error) {
	s.mu.Lock()
	all := s.state.Tunnels()
	s.mu.Unlock()
	var errs []error
	for _, t := range all {
		if t.Wanted() {
			continue
		}
		if err := s.dropTunnel(ctx, t); err != nil {
			again = true
			errs = append(errs, s.tunnelFailed(ctx, t.Name, err))
		}
	}
	return again, errors.Join(errs...)
}

func (s *Service) dropTunnel(ctx context.Context, t tunnel.State) error {
	id := t.TunnelID
	if id == "" {
		// It may have been made all the same.
		found, err := s.provider.Tunnel(ctx, t.Name)
		if err != nil && !errors.Is(err, zone.ErrGone) {
			return err
		}
		id = found
	}
	if id != "" {
		if err := s.provider.DeleteTunnel(ctx, id); err != nil {
			return err
		}
		if err := s.deps.Seal.Destroy(ctx, sealedFor(id)); err != nil {
			return err
		}
	}
	delete(s.rounds.ruled, t.Name)
	return s.commandTunnel(ctx, t.Name, tunnel.Deleted{}, "")
}

// commandTunnel runs a command and waits until what it did is known here.
func (s *Service) commandTunnel(ctx context.Context, name string, c tunnel.Command, by string) error {
	result, err := s.tunnels.Handle(ctx, decider.Command[tunnel.Command]{Aggregate: subjects.Of(subjects.Platform, subjects.Tunnel, name), Command: c, Actor: by})
	if err != nil {
		return fmt.Errorf("%T: %w", c, err)
	}
	if result.Event == nil {
		return nil
	}
	if !s.until(ctx, func(*wanted.State) bool { return s.sequence >= result.Sequence }) {
		return fmt.Errorf("%T: wait until it is known: %w", c, ctx.Err())
	}
	return nil
}
