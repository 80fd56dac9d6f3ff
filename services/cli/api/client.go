// Package api speaks to the gateway's deploy dialect over HTTP.
package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// callTimeout bounds one call, streams aside.
	callTimeout = 30 * time.Second
	// maxAnswer bounds what is read of one answer, in bytes.
	maxAnswer = 32 << 20
)

// Deployment is one deployment as the API answers it.
type Deployment struct {
	ID                 string     `json:"id"`
	AppID              string     `json:"app_id"`
	DeployTierID       string     `json:"deploy_tier_id"`
	ContainerName      string     `json:"container_name"`
	ContainerImage     string     `json:"container_image"`
	HostServer         *string    `json:"host_server"`
	Subdomain          string     `json:"subdomain"`
	CustomDomain       *string    `json:"custom_domain"`
	Status             string     `json:"status"`
	StatusReason       *string    `json:"status_reason"`
	HealthStatus       string     `json:"health_status"`
	LastHealthCheck    *time.Time `json:"last_health_check"`
	BillingStatus      string     `json:"billing_status"`
	MemoryLimitMB      uint32     `json:"memory_limit_mb"`
	CPULimitMillicores uint32     `json:"cpu_limit_millicores"`
	InsertedAt         *time.Time `json:"inserted_at"`
	DeployedAt         *time.Time `json:"deployed_at"`
	StoppedAt          *time.Time `json:"stopped_at"`
}

// LogEntry is one action of the audit log.
type LogEntry struct {
	ID          string          `json:"id"`
	Action      string          `json:"action"`
	Status      string          `json:"status"`
	InitiatedBy *string         `json:"initiated_by"`
	InsertedAt  time.Time       `json:"inserted_at"`
	Details     json.RawMessage `json:"details"`
}

// CreateRequest asks for a deployment; empty fields are not sent.
type CreateRequest struct {
	Subdomain    string            `json:"subdomain"`
	Image        string            `json:"image"`
	Tier         string            `json:"tier"`
	Port         *int              `json:"port,omitempty"`
	CustomDomain string            `json:"custom_domain,omitempty"`
	EnvVars      map[string]string `json:"env_vars,omitempty"`
}

// Problem is what the API answered instead of success.
type Problem struct {
	Status  int    `json:"status"`
	Code    string `json:"code"`
	Message string `json:"message"`
	Fields  []struct {
		Field   string `json:"field"`
		Message string `json:"message"`
	} `json:"fields"`
}

func (p *Problem) Error() string { return p.Message }

// Unreachable is returned when there was no answer at all.
type Unreachable struct {
	URL   string
	Cause error
}

func (u *Unreachable) Error() string { return fmt.Sprintf("%s does not answer: %v", u.URL, u.Cause) }
func (u *Unreachable) Unwrap() error { return u.Cause }

// Client calls one gateway with one token.
type Client struct {
	base  string
	token string
	agent string
	http  *http.Client
}

// New makes a client of the gateway at base (http://host:port); agent names the
// program in requests.
func New(base, token, agent string) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%q is no API address; it looks like http://127.0.0.1:8080", base)
	}
	return &Client{base: strings.TrimRight(base, "/"), token: token, agent: agent, http: &http.Client{
		// The token is for this address and no other.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Create asks for a deployment.
func (c *Client) Create(ctx context.Context, req CreateRequest) (Deployment, error) {
	var res struct{ Deployment Deployment }
	err := c.call(ctx, http.MethodPost, "/api/deploy/apps", req, &res)
	return res.Deployment, err
}

// List returns the operator's deployments, newest first.
func (c *Client) List(ctx context.Context) ([]Deployment, error) {
	var res struct{ Deployments []Deployment }
	err := c.call(ctx, http.MethodGet, "/api/deploy/apps", nil, &res)
	return res.Deployments, err
}

// Get returns one deployment.
func (c *Client) Get(ctx context.Context, id string) (Deployment, error) {
	var res struct{ Deployment Deployment }
	err := c.call(ctx, http.MethodGet, "/api/deploy/apps/"+url.PathEscape(id), nil, &res)
	return res.Deployment, err
}

// Logs returns the deployment's audit log, oldest first.
func (c *Client) Logs(ctx context.Context, id string) ([]LogEntry, error) {
	var res struct{ Logs []LogEntry }
	err := c.call(ctx, http.MethodGet, "/api/deploy/apps/"+url.PathEscape(id)+"/logs", nil, &res)
	return res.Logs, err
}

// Destroy removes the deployment for good and returns what the API says of it.
func (c *Client) Destroy(ctx context.Context, id string) (message string, err error) {
	var res struct{ Message string }
	err = c.call(ctx, http.MethodDelete, "/api/deploy/apps/"+url.PathEscape(id), nil, &res)
	return res.Message, err
}

func (c *Client) call(ctx context.Context, method, path string, body, into any) error {
	return c.callWithin(ctx, callTimeout, method, path, body, into)
}

func (c *Client) callWithin(ctx context.Context, limit time.Duration, method, path string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	res, err := c.send(ctx, method, path, body, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(into); err != nil {
		return fmt.Errorf("read the answer of %s %s: %w", method, path, err)
	}
	return nil
}

// send returns a successful answer, whose body the caller closes.
func (c *Client) send(ctx context.Context, method, path string, body any, header http.Header) (*http.Response, error) {
	var sent io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("write the request as JSON: %w", err)
		}
		sent = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, sent)
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	req.Header.Set("User-Agent", c.agent)
	req.Header.Set("Authorization", "Bearer "+c.token)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, ctx.Err()
		}
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err
		}
		return nil, &Unreachable{URL: c.base, Cause: err}
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		defer res.Body.Close()
		return nil, problemOf(res)
	}
	return res, nil
}

func problemOf(res *http.Response) *Problem {
	p := &Problem{}
	// Whatever stands between may answer something else than a problem.
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(p); err != nil || p.Message == "" {
		p.Message = "The API answered " + res.Status + "."
	}
	p.Status = res.StatusCode
	return p
}
