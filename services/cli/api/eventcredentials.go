package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

const eventCredentials = "/api/v1/event-credentials"

// EventCredential is what NATS clients read an organization's events with.
type EventCredential struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	PublicKey string     `json:"public_key"`
	Subject   string     `json:"subject"`
	Stream    string     `json:"stream"`
	Consumer  string     `json:"consumer"`
	CreatedBy string     `json:"created_by"`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at"`
}

// NewEventCredential is one with its secret, which is shown once.
type NewEventCredential struct {
	EventCredential EventCredential `json:"event_credential"`
	// Seed is the secret key, URL where NATS clients connect; that may be empty.
	Seed string `json:"seed"`
	URL  string `json:"url"`
}

// CreateEventCredential makes one that reads the past after that sequence; expires may
// be nil.
func (c *Client) CreateEventCredential(ctx context.Context, name string, after uint64, expires *time.Time) (NewEventCredential, error) {
	body := map[string]any{"name": name, "after_sequence": after}
	if expires != nil {
		body["expires_at"] = expires.UTC().Format(time.RFC3339)
	}
	var res NewEventCredential
	err := c.call(ctx, http.MethodPost, eventCredentials, body, &res)
	return res, err
}

// EventCredentials lists the organization's, the oldest first.
func (c *Client) EventCredentials(ctx context.Context) ([]EventCredential, error) {
	var res struct {
		EventCredentials []EventCredential `json:"event_credentials"`
	}
	err := c.call(ctx, http.MethodGet, eventCredentials, nil, &res)
	return res.EventCredentials, err
}

// RevokeEventCredential ends one and its connections.
func (c *Client) RevokeEventCredential(ctx context.Context, id string) error {
	var res struct{}
	return c.call(ctx, http.MethodDelete, eventCredentials+"/"+url.PathEscape(id), nil, &res)
}
