package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// DNS is which zones the platform holds, and how the records in them stand.
type DNS struct {
	Provider string `json:"provider"`
	Trouble  string `json:"trouble"`
	Zones    []struct {
		Name string `json:"name"`
		Use  string `json:"use"`
	} `json:"zones"`
	Wanted   uint32 `json:"wanted"`
	Applied  uint32 `json:"applied"`
	Failed   uint32 `json:"failed"`
	Failures []struct {
		Name    string `json:"name"`
		Type    string `json:"type"`
		Content string `json:"content"`
		Code    string `json:"code"`
		Reason  string `json:"reason"`
		Org     string `json:"org"`
	} `json:"failures"`
	ComparedAt *time.Time `json:"compared_at"`
}

// ComparedDNS is what came of a whole comparison.
type ComparedDNS struct {
	Wanted  uint32 `json:"wanted"`
	Applied uint32 `json:"applied"`
	Failed  uint32 `json:"failed"`
	Trouble string `json:"trouble"`
}

// Tunnel leads from the DNS provider to an edge.
type Tunnel struct {
	Name        string     `json:"name"`
	TunnelID    string     `json:"tunnel_id"`
	Status      string     `json:"status"`
	Reason      string     `json:"reason"`
	Hostnames   []string   `json:"hostnames"`
	Service     string     `json:"service"`
	RequestedAt *time.Time `json:"requested_at"`
}

// TunnelRequest asks for a tunnel; empty fields are not sent.
type TunnelRequest struct {
	Name      string   `json:"name"`
	Hostnames []string `json:"hostnames,omitempty"`
	Service   string   `json:"service,omitempty"`
}

// TunnelToken is a secret, and what runs with it.
type TunnelToken struct {
	Token   string `json:"token"`
	Command string `json:"command"`
}

const tunnels = admin + "/dns/tunnels"

// DNS says how the platform's zones stand.
func (c *Client) DNS(ctx context.Context) (DNS, error) {
	var res DNS
	err := c.call(ctx, http.MethodGet, admin+"/dns", nil, &res)
	return res, err
}

// SyncDNS compares all that is wanted with all that is there; it answers when that is done.
func (c *Client) SyncDNS(ctx context.Context) (ComparedDNS, error) {
	var res ComparedDNS
	err := c.call(ctx, http.MethodPost, admin+"/dns/sync", nil, &res)
	return res, err
}

// Tunnels lists them.
func (c *Client) Tunnels(ctx context.Context) ([]Tunnel, error) {
	var res struct{ Tunnels []Tunnel }
	err := c.call(ctx, http.MethodGet, tunnels, nil, &res)
	return res.Tunnels, err
}

// CreateTunnel makes a tunnel, or gives one other hostnames.
func (c *Client) CreateTunnel(ctx context.Context, req TunnelRequest) (Tunnel, error) {
	var res struct{ Tunnel Tunnel }
	err := c.call(ctx, http.MethodPost, tunnels, req, &res)
	return res.Tunnel, err
}

// DeleteTunnel removes a tunnel and its routes, and returns what the API says of it.
func (c *Client) DeleteTunnel(ctx context.Context, name string) (message string, err error) {
	var res struct{ Message string }
	err = c.call(ctx, http.MethodDelete, tunnels+"/"+url.PathEscape(name), nil, &res)
	return res.Message, err
}

// TunnelToken shows what a tunnel's daemon runs with.
func (c *Client) TunnelToken(ctx context.Context, name string) (TunnelToken, error) {
	var res TunnelToken
	err := c.call(ctx, http.MethodPost, tunnels+"/"+url.PathEscape(name)+"/token", nil, &res)
	return res, err
}
