package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// ClientID is what every platform knows the command line by: a public client, for the
// device flow (RFC 8628).
const ClientID = "slipway-cli"

// OAuth is how the command line gets its tokens from the platform at base.
func OAuth(base string, scopes ...string) *oauth2.Config {
	base = strings.TrimRight(base, "/")
	return &oauth2.Config{ClientID: ClientID, Scopes: scopes, Endpoint: oauth2.Endpoint{
		DeviceAuthURL: base + "/api/oauth/device/code", TokenURL: base + "/api/oauth/token", AuthStyle: oauth2.AuthStyleInParams,
	}}
}

// Token says who the client's token speaks for.
type Token struct {
	OperatorID string     `json:"operator_id"`
	OrgID      string     `json:"org_id"`
	AppID      string     `json:"app_id"`
	Scopes     []string   `json:"scopes"`
	Role       string     `json:"role"`
	ExpiresAt  *time.Time `json:"expires_at"`
}

// Grant is what a person has allowed one app to do.
type Grant struct {
	ID         string    `json:"id"`
	OrgID      string    `json:"org_id"`
	ClientID   string    `json:"client_id"`
	AppName    string    `json:"app_name"`
	Scopes     []string  `json:"scopes"`
	CreatedAt  time.Time `json:"created_at"`
	LastUsedAt time.Time `json:"last_used_at"`
	ExpiresAt  time.Time `json:"expires_at"`
}

// Org is an organization that the caller is a member of.
type Org struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Role string `json:"role"`
}

// DescribeToken returns who the client's token speaks for.
func (c *Client) DescribeToken(ctx context.Context) (Token, error) {
	var res Token
	err := c.call(ctx, http.MethodGet, "/api/oauth/token", nil, &res)
	return res, err
}

// Grants returns what the caller has allowed apps to do, newest first.
func (c *Client) Grants(ctx context.Context) ([]Grant, error) {
	var res struct{ Grants []Grant }
	err := c.call(ctx, http.MethodGet, "/api/oauth/grants", nil, &res)
	return res.Grants, err
}

// RevokeGrant ends every token of the grant.
func (c *Client) RevokeGrant(ctx context.Context, id string) error {
	var res struct{}
	return c.call(ctx, http.MethodDelete, "/api/oauth/grants/"+url.PathEscape(id), nil, &res)
}

// Orgs returns the organizations that the caller is a member of.
func (c *Client) Orgs(ctx context.Context) ([]Org, error) {
	var res struct{ Orgs []Org }
	err := c.call(ctx, http.MethodGet, "/api/v1/orgs", nil, &res)
	return res.Orgs, err
}

// Revoke ends a token of the command line's own; of a refresh token all that came of the
// same sign-in (RFC 7009).
func (c *Client) Revoke(ctx context.Context, token string) error {
	res, err := c.send(ctx, http.MethodPost, "/api/oauth/revoke", map[string]string{"token": token, "client_id": ClientID}, nil)
	if err != nil {
		return fmt.Errorf("revoke a token: %w", err)
	}
	return res.Body.Close()
}
