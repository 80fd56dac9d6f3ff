package cloudflare

import (
	"context"
	"errors"
	"fmt"

	"github.com/cloudflare/cloudflare-go/v6/shared"
	"github.com/cloudflare/cloudflare-go/v6/zero_trust"

	"github.com/slipway-paas/slipway/services/dns/zone"
)

// tunnelsPerPage is asked for in lists.
const tunnelsPerPage = 100

// tunnelName marks a tunnel as ours: tunnels have no comment.
func (c *Client) tunnelName(name string) string { return "slipway-" + c.config.Owner + "-" + name }

// turn waits for a call's turn and returns the account that it is for.
func (c *Client) turn(ctx context.Context, doing string) (account string, err error) {
	if account, err = c.accountID(ctx); err != nil {
		return "", fmt.Errorf("%s: %w", doing, err)
	}
	return account, called(doing, c.pace.wait(ctx))
}

func (c *Client) accountID(ctx context.Context) (string, error) {
	if c.config.Account != "" {
		return c.config.Account, nil
	}
	known := func() string {
		c.account.mu.Lock()
		defer c.account.mu.Unlock()
		return c.account.id
	}
	if id := known(); id != "" {
		return id, nil
	}
	if _, err := c.Zones(ctx); err != nil {
		return "", err
	}
	if id := known(); id != "" {
		return id, nil
	}
	return "", fmt.Errorf("%w: it sees no zone, so that the account is not known", zone.ErrUnauthorized)
}

// Tunnel finds our tunnel of that name.
func (c *Client) Tunnel(ctx context.Context, name string) (string, error) {
	doing := "find the tunnel " + name
	all, err := pages(tunnelsPerPage, func(page float64) ([]shared.CloudflareTunnel, int64, error) {
		account, err := c.turn(ctx, doing)
		if err != nil {
			return nil, 0, err
		}
		params := zero_trust.TunnelCloudflaredListParams{}
		set(&params.AccountID.Value, &params.AccountID.Present, account)
		set(&params.Name.Value, &params.Name.Present, c.tunnelName(name))
		set(&params.IsDeleted.Value, &params.IsDeleted.Present, false)
		set(&params.Page.Value, &params.Page.Present, page)
		set(&params.PerPage.Value, &params.PerPage.Present, float64(c.pageSize(tunnelsPerPage)))
		res, err := c.tunnels.List(ctx, params)
		if err != nil {
			return nil, 0, err
		}
		return res.Result, res.ResultInfo.PerPage, nil
	})
	if err != nil {
		return "", called(doing, err)
	}
	for _, t := range all {
		if t.Name == c.tunnelName(name) && t.DeletedAt.IsZero() {
			return t.ID, nil
		}
	}
	return "", fmt.Errorf("%s: %w", doing, zone.ErrGone)
}

// CreateTunnel makes a tunnel whose rules are kept at Cloudflare.
func (c *Client) CreateTunnel(ctx context.Context, name string) (string, error) {
	doing := "make the tunnel " + name
	account, err := c.turn(ctx, doing)
	if err != nil {
		return "", err
	}
	params := zero_trust.TunnelCloudflaredNewParams{}
	set(&params.AccountID.Value, &params.AccountID.Present, account)
	set(&params.Name.Value, &params.Name.Present, c.tunnelName(name))
	set(&params.ConfigSrc.Value, &params.ConfigSrc.Present, zero_trust.TunnelCloudflaredNewParamsConfigSrcCloudflare)
	made, err := c.tunnels.New(ctx, params)
	if err != nil {
		return "", called(doing, err)
	}
	return made.ID, nil
}

// TunnelToken is what cloudflared runs with.
func (c *Client) TunnelToken(ctx context.Context, id string) (string, error) {
	doing := "get the token of the tunnel " + id
	account, err := c.turn(ctx, doing)
	if err != nil {
		return "", err
	}
	params := zero_trust.TunnelCloudflaredTokenGetParams{}
	set(&params.AccountID.Value, &params.AccountID.Present, account)
	token, err := c.tunnels.Token.Get(ctx, id, params)
	if err != nil {
		return "", called(doing, err)
	}
	if token == nil || *token == "" {
		return "", called(doing, errors.New("there is none in it"))
	}
	return *token, nil
}

// Ingress is where the tunnel sends hostnames.
func (c *Client) Ingress(ctx context.Context, id string) ([]zone.Rule, error) {
	doing := "read the rules of the tunnel " + id
	account, err := c.turn(ctx, doing)
	if err != nil {
		return nil, err
	}
	params := zero_trust.TunnelCloudflaredConfigurationGetParams{}
	set(&params.AccountID.Value, &params.AccountID.Present, account)
	got, err := c.tunnels.Configurations.Get(ctx, id, params)
	if err != nil {
		return nil, called(doing, err)
	}
	var rules []zone.Rule
	for _, rule := range got.Config.Ingress {
		rules = append(rules, zone.Rule{Hostname: rule.Hostname, Service: rule.Service})
	}
	return rules, nil
}

// SetIngress replaces the tunnel's rules.
func (c *Client) SetIngress(ctx context.Context, id string, rules []zone.Rule) error {
	doing := "set the rules of the tunnel " + id
	account, err := c.turn(ctx, doing)
	if err != nil {
		return err
	}
	ingress := make([]zero_trust.TunnelCloudflaredConfigurationUpdateParamsConfigIngress, len(rules))
	for i, rule := range rules {
		if rule.Hostname != "" {
			set(&ingress[i].Hostname.Value, &ingress[i].Hostname.Present, rule.Hostname)
		}
		set(&ingress[i].Service.Value, &ingress[i].Service.Present, rule.Service)
	}
	config := zero_trust.TunnelCloudflaredConfigurationUpdateParamsConfig{}
	set(&config.Ingress.Value, &config.Ingress.Present, ingress)
	params := zero_trust.TunnelCloudflaredConfigurationUpdateParams{}
	set(&params.AccountID.Value, &params.AccountID.Present, account)
	set(&params.Config.Value, &params.Config.Present, config)
	_, err = c.tunnels.Configurations.Update(ctx, id, params)
	return called(doing, err)
}

// DeleteTunnel removes the tunnel, there or not.
func (c *Client) DeleteTunnel(ctx context.Context, id string) error {
	doing := "remove the tunnel " + id
	account, err := c.turn(ctx, doing)
	if err != nil {
		return err
	}
	params := zero_trust.TunnelCloudflaredDeleteParams{}
	set(&params.AccountID.Value, &params.AccountID.Present, account)
	_, err = c.tunnels.Delete(ctx, id, params)
	if errors.Is(err, zone.ErrGone) {
		return nil
	}
	return called(doing, err)
}
