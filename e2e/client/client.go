// Package client speaks to the platform as curl would: plain HTTP, JSON as maps.
// It knows nothing of the platform's Go types, so that what a stranger sees is
// what the tests see.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

const maxAnswer = 4 << 20

// Client calls one platform's API.
type Client struct {
	// API is the base address, e.g. http://127.0.0.1:8080.
	API string
	// Token is the bearer token; empty sends none.
	Token string
	// Header is sent with every call, beside the token's.
	Header map[string]string
	// HTTP is used for every call; http.DefaultClient when nil.
	HTTP *http.Client
}

// Answer is what came back.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// JSON returns the body as a map; nil when it is not a JSON object.
func (a Answer) JSON() map[string]any {
	var m map[string]any
	if json.Unmarshal(a.Body, &m) != nil {
		return nil
	}
	return m
}

// Object returns the object under key, or nil.
func (a Answer) Object(key string) map[string]any {
	m, _ := a.JSON()[key].(map[string]any)
	return m
}

// List returns the objects under key, in order.
func (a Answer) List(key string) []map[string]any {
	raw, _ := a.JSON()[key].([]any)
	list := make([]map[string]any, 0, len(raw))
	for _, item := range raw {
		if m, ok := item.(map[string]any); ok {
			list = append(list, m)
		}
	}
	return list
}

func (a Answer) String() string { return fmt.Sprintf("%d %s", a.Status, bytes.TrimSpace(a.Body)) }

// Do calls the API; body is sent as JSON unless it is nil, []byte or a string.
func (c *Client) Do(ctx context.Context, method, path string, body any) (Answer, error) {
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case []byte:
		reader = bytes.NewReader(b)
	case string:
		reader = bytes.NewReader([]byte(b))
	default:
		encoded, err := json.Marshal(b)
		if err != nil {
			return Answer{}, fmt.Errorf("encode the body of %s %s: %w", method, path, err)
		}
		reader = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.API+path, reader)
	if err != nil {
		return Answer{}, fmt.Errorf("make %s %s: %w", method, path, err)
	}
	if reader != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if c.Token != "" {
		request.Header.Set("Authorization", "Bearer "+c.Token)
	}
	for name, value := range c.Header {
		request.Header.Set(name, value)
	}
	return send(c.http(), request)
}

func (c *Client) http() *http.Client {
	if c.HTTP != nil {
		return c.HTTP
	}
	return http.DefaultClient
}

// Visit asks the edge for a path of a host, as a browser would after looking the
// host up. More headers come as name, value pairs.
func Visit(ctx context.Context, edge, host, method, path string, body io.Reader, headers ...string) (Answer, error) {
	request, err := http.NewRequestWithContext(ctx, method, edge+path, body)
	if err != nil {
		return Answer{}, fmt.Errorf("make %s %s: %w", method, path, err)
	}
	request.Host = host
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	return send(http.DefaultClient, request)
}

func send(client *http.Client, request *http.Request) (Answer, error) {
	response, err := client.Do(request)
	if err != nil {
		return Answer{}, fmt.Errorf("%s %s: %w", request.Method, request.URL.Path, err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return Answer{}, fmt.Errorf("read the answer to %s %s: %w", request.Method, request.URL.Path, err)
	}
	return Answer{Status: response.StatusCode, Header: response.Header, Body: content}, nil
}

// Poll calls check every 20 ms until it is done, fails, or ctx ends; then its last
// word of what is missing is in the error.
func Poll(ctx context.Context, check func(context.Context) (done bool, missing string, err error)) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	said := "nothing yet"
	for {
		done, missing, err := check(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			return err
		case done:
			return nil
		case missing != "":
			said = missing
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last seen: %s", ctx.Err(), said)
		case <-tick.C:
		}
	}
}
