package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

const webhooks = "/api/v1/webhooks"

// Webhook is an endpoint that is told of an organization's events.
type Webhook struct {
	ID             string    `json:"id"`
	URL            string    `json:"url"`
	Description    string    `json:"description"`
	Types          []string  `json:"types"`
	Aggregates     []string  `json:"aggregates"`
	CreatedBy      string    `json:"created_by"`
	CreatedAt      time.Time `json:"created_at"`
	Status         string    `json:"status"`
	DisabledReason string    `json:"disabled_reason"`
}

// WebhookRequest is what a webhook is to be; empty lists are for all events.
type WebhookRequest struct {
	URL         string   `json:"url"`
	Description string   `json:"description"`
	Types       []string `json:"types"`
	Aggregates  []string `json:"aggregates"`
}

// WebhookDelivery is one event on its way to one endpoint.
type WebhookDelivery struct {
	ID            string     `json:"id"`
	EventType     string     `json:"event_type"`
	EventSequence uint64     `json:"event_sequence"`
	Status        string     `json:"status"`
	Attempts      uint32     `json:"attempts"`
	LastStatus    uint32     `json:"last_status"`
	LastError     string     `json:"last_error"`
	CreatedAt     time.Time  `json:"created_at"`
	LastAttemptAt *time.Time `json:"last_attempt_at"`
	NextAttemptAt *time.Time `json:"next_attempt_at"`
}

// WebhookTest is how an endpoint took a test message; Status is 0 for no answer.
type WebhookTest struct {
	ID       string `json:"id"`
	Accepted bool   `json:"accepted"`
	Status   uint32 `json:"status"`
	Error    string `json:"error"`
}

// WebhookReplay is what a replay did. LastSequence is the last event's that was looked at.
type WebhookReplay struct {
	Replayed     uint32 `json:"replayed"`
	LastSequence uint64 `json:"last_sequence"`
}

func webhook(id, verb string) string { return webhooks + "/" + url.PathEscape(id) + verb }

type webhookAnswer struct {
	Webhook Webhook `json:"webhook"`
	Secret  string  `json:"secret"`
}

// CreateWebhook makes a webhook and returns the secret that its messages are signed with.
func (c *Client) CreateWebhook(ctx context.Context, req WebhookRequest) (made Webhook, secret string, err error) {
	var res webhookAnswer
	err = c.call(ctx, http.MethodPost, webhooks, req, &res)
	return res.Webhook, res.Secret, err
}

// Webhooks lists those of the organization, the oldest first.
func (c *Client) Webhooks(ctx context.Context) ([]Webhook, error) {
	var res struct{ Webhooks []Webhook }
	err := c.call(ctx, http.MethodGet, webhooks, nil, &res)
	return res.Webhooks, err
}

// Webhook returns one.
func (c *Client) Webhook(ctx context.Context, id string) (Webhook, error) {
	var res webhookAnswer
	err := c.call(ctx, http.MethodGet, webhook(id, ""), nil, &res)
	return res.Webhook, err
}

// UpdateWebhook replaces all that a webhook is, but its secret.
func (c *Client) UpdateWebhook(ctx context.Context, id string, req WebhookRequest) (Webhook, error) {
	var res webhookAnswer
	err := c.call(ctx, http.MethodPut, webhook(id, ""), req, &res)
	return res.Webhook, err
}

// EnableWebhook begins deliveries again.
func (c *Client) EnableWebhook(ctx context.Context, id string) (Webhook, error) {
	var res webhookAnswer
	err := c.call(ctx, http.MethodPost, webhook(id, "/enable"), nil, &res)
	return res.Webhook, err
}

// DeleteWebhook ends a webhook for good and returns what the API says of it.
func (c *Client) DeleteWebhook(ctx context.Context, id string) (message string, err error) {
	var res struct{ Message string }
	err = c.call(ctx, http.MethodDelete, webhook(id, ""), nil, &res)
	return res.Message, err
}

// RotateWebhookSecret gives a webhook another secret and returns it; for a day the one
// before signs too.
func (c *Client) RotateWebhookSecret(ctx context.Context, id string) (of Webhook, secret string, err error) {
	var res webhookAnswer
	err = c.call(ctx, http.MethodPost, webhook(id, "/rotate-secret"), nil, &res)
	return res.Webhook, res.Secret, err
}

// TestWebhook has one test message sent, now.
func (c *Client) TestWebhook(ctx context.Context, id string) (WebhookTest, error) {
	var res WebhookTest
	err := c.call(ctx, http.MethodPost, webhook(id, "/test"), nil, &res)
	return res, err
}

// WebhookDeliveries lists the last ones, those of the newest events first.
func (c *Client) WebhookDeliveries(ctx context.Context, id string) ([]WebhookDelivery, error) {
	var res struct{ Deliveries []WebhookDelivery }
	err := c.call(ctx, http.MethodGet, webhook(id, "/deliveries"), nil, &res)
	return res.Deliveries, err
}

// ReplayDelivery has one delivery made again.
func (c *Client) ReplayDelivery(ctx context.Context, id, delivery string) (WebhookReplay, error) {
	return c.replay(ctx, id, map[string]any{"delivery_id": delivery})
}

// ReplayEvents has all events after a sequence delivered again, as many as one call may.
func (c *Client) ReplayEvents(ctx context.Context, id string, after uint64) (WebhookReplay, error) {
	return c.replay(ctx, id, map[string]any{"after_sequence": after})
}

func (c *Client) replay(ctx context.Context, id string, what map[string]any) (WebhookReplay, error) {
	var res WebhookReplay
	err := c.call(ctx, http.MethodPost, webhook(id, "/replay"), what, &res)
	return res, err
}
