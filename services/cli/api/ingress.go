package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Ingress is how edges treat an app's requests; a 0 stands for the platform's default.
type Ingress struct {
	Maintenance           bool   `json:"maintenance"`
	MaxRequestBytes       uint32 `json:"max_request_bytes"`
	RequestTimeoutSeconds uint32 `json:"request_timeout_seconds"`
	Sticky                bool   `json:"sticky"`
	DrainSeconds          uint32 `json:"drain_seconds"`
	Compression           bool   `json:"compression"`
}

// IngressChange is what to change of it; what is nil stays.
type IngressChange struct {
	Maintenance           *bool  `json:"maintenance,omitempty"`
	MaxRequestBytes       *int64 `json:"max_request_bytes,omitempty"`
	RequestTimeoutSeconds *int64 `json:"request_timeout_seconds,omitempty"`
	Sticky                *bool  `json:"sticky,omitempty"`
	DrainSeconds          *int64 `json:"drain_seconds,omitempty"`
	Compression           *bool  `json:"compression,omitempty"`
}

// RequestMetrics are the sums of an app's requests within a window.
type RequestMetrics struct {
	Window   string    `json:"window"`
	From     time.Time `json:"from"`
	Until    time.Time `json:"until"`
	Requests uint32    `json:"requests"`
	Rate     float64   `json:"rate"`
	Errors   struct {
		Client uint32 `json:"client"`
		Server uint32 `json:"server"`
	} `json:"errors"`
	ErrorRate float64 `json:"error_rate"`
	P50       float64 `json:"p50_ms"`
	P90       float64 `json:"p90_ms"`
	P99       float64 `json:"p99_ms"`
	BytesIn   float64 `json:"bytes_in"`
	BytesOut  float64 `json:"bytes_out"`
}

func ofApp(name, what string) string { return "/api/v1/apps/" + url.PathEscape(name) + what }

// Ingress returns how the app's requests are treated.
func (c *Client) Ingress(ctx context.Context, name string) (Ingress, error) {
	var res struct{ Ingress Ingress }
	err := c.call(ctx, http.MethodGet, ofApp(name, "/ingress"), nil, &res)
	return res.Ingress, err
}

// ConfigureIngress changes how they are and returns how they are then.
func (c *Client) ConfigureIngress(ctx context.Context, name string, change IngressChange) (Ingress, error) {
	var res struct{ Ingress Ingress }
	err := c.call(ctx, http.MethodPut, ofApp(name, "/ingress"), change, &res)
	return res.Ingress, err
}

// RequestMetrics returns the sums of the requests within the window, like 5m.
func (c *Client) RequestMetrics(ctx context.Context, name, window string) (RequestMetrics, error) {
	var res RequestMetrics
	err := c.call(ctx, http.MethodGet, ofApp(name, "/metrics/requests?window="+url.QueryEscape(window)), nil, &res)
	return res, err
}

// AccessLog hands over the last lines of the app's access log, as text or as JSON, and
// then, when it is followed, each new one until ctx ends (nil). A log that breaks is
// followed again from then on: lines may be missing in between.
func (c *Client) AccessLog(ctx context.Context, name string, lines int, follow, asJSON bool, handle func(line string) error) error {
	failures := 0
	for {
		begun := time.Now()
		err := c.accessLog(ctx, name, lines, follow, asJSON, handle)
		switch {
		case ctx.Err() != nil:
			return nil
		case !follow || err != nil && !mayPass(err):
			return err
		}
		if failures++; time.Since(begun) > silence {
			failures = 1
		}
		if failures > maxFailures {
			return err
		}
		lines = 1
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

func (c *Client) accessLog(ctx context.Context, name string, lines int, follow, asJSON bool, handle func(line string) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watchdog := time.AfterFunc(silence, cancel)
	defer watchdog.Stop()
	query := url.Values{"source": {"router"}, "lines": {strconv.Itoa(lines)}, "follow": {strconv.FormatBool(follow)}, "format": {"text"}}
	if asJSON {
		query.Set("format", "json")
	}
	res, err := c.send(ctx, http.MethodGet, ofApp(name, "/logs?"+query.Encode()), nil, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	scanner := bufio.NewScanner(res.Body)
	scanner.Buffer(make([]byte, 0, 64<<10), maxEvent)
	for scanner.Scan() {
		watchdog.Reset(silence)
		// Empty ones only show that it lives.
		if scanner.Text() == "" {
			continue
		}
		if err := handle(scanner.Text()); err != nil {
			return err
		}
	}
	if err := scanner.Err(); err != nil {
		return &Unreachable{URL: c.base, Cause: fmt.Errorf("the log broke off: %w", err)}
	}
	if follow {
		return &Unreachable{URL: c.base, Cause: errors.New("the log ended")}
	}
	return nil
}
