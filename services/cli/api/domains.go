package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Domain is a name that an app's owner brought, as the API says it.
type Domain struct {
	ID            string      `json:"id"`
	ApplicationID string      `json:"application_id"`
	Domain        string      `json:"domain"`
	DomainUnicode string      `json:"domain_unicode"`
	IsPrimary     bool        `json:"is_primary"`
	SSLActive     bool        `json:"ssl_active"`
	CreatedAt     time.Time   `json:"created_at"`
	Status        string      `json:"status"`
	Reason        string      `json:"reason"`
	Code          string      `json:"code"`
	Records       []DNSRecord `json:"records"`
	VerifiedAt    *time.Time  `json:"verified_at"`
	NextCheckAt   *time.Time  `json:"next_check_at"`
}

// DNSRecord is one that the name's owner is to make.
type DNSRecord struct {
	Type     string `json:"type"`
	Name     string `json:"name"`
	Value    string `json:"value"`
	Required bool   `json:"required"`
}

// Verified is what a look at a domain's DNS found.
type Verified struct {
	Success bool   `json:"success"`
	Message string `json:"message"`
}

func domains(app string) string { return "/api/v1/applications/" + url.PathEscape(app) + "/domains" }

func domain(app, name string) string { return domains(app) + "/" + url.PathEscape(name) }

// Domains are those of an app, by its id or subdomain, the oldest first.
func (c *Client) Domains(ctx context.Context, app string) ([]Domain, error) {
	var res struct{ Domains []Domain }
	err := c.call(ctx, http.MethodGet, domains(app), nil, &res)
	return res.Domains, err
}

// AddDomain adds one.
func (c *Client) AddDomain(ctx context.Context, app, name string, primary bool) (Domain, error) {
	var res struct{ Domain Domain }
	err := c.call(ctx, http.MethodPost, domains(app), map[string]any{"domain": name, "is_primary": primary}, &res)
	return res.Domain, err
}

// RemoveDomain makes the name free.
func (c *Client) RemoveDomain(ctx context.Context, app, name string) error {
	return c.call(ctx, http.MethodDelete, domain(app, name), nil, nil)
}

// VerifyDomain has its DNS looked at now.
func (c *Client) VerifyDomain(ctx context.Context, app, name string) (Verified, error) {
	var res Verified
	err := c.call(ctx, http.MethodPost, domain(app, name)+"/verify", nil, &res)
	return res, err
}

// SetPrimaryDomain makes it the app's primary one.
func (c *Client) SetPrimaryDomain(ctx context.Context, app, name string) error {
	return c.call(ctx, http.MethodPost, domain(app, name)+"/primary", nil, nil)
}
