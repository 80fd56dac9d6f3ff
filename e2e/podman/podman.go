// Package podman looks at a node's Podman from outside, over its socket, and runs
// containers with nothing but Podman: what the platform is measured against.
package podman

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

const (
	base      = "http://podman/v4.3.0/libpod"
	maxAnswer = 32 << 20
)

// ErrNotFound is returned for a container or image that is not there.
var ErrNotFound = errors.New("podman has no such thing")

// Client speaks to one Podman service.
type Client struct {
	http *http.Client
}

// Dial returns a client of the service at that Unix socket. It connects when used.
func Dial(socket string) *Client {
	dialer := &net.Dialer{}
	return &Client{http: &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 16,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
	}}}
}

// Container is one line of the list.
type Container struct {
	ID     string            `json:"Id"`
	Names  []string          `json:"Names"`
	Image  string            `json:"Image"`
	State  string            `json:"State"`
	Labels map[string]string `json:"Labels"`
	Pid    int               `json:"Pid"`
}

// Containers lists all containers, also those that have ended.
func (c *Client) Containers(ctx context.Context) ([]Container, error) {
	var list []Container
	return list, c.call(ctx, http.MethodGet, "/containers/json?all=true", nil, &list)
}

// Inspected is what matters of a container's inspection.
type Inspected struct {
	ID    string `json:"Id"`
	Name  string `json:"Name"`
	State struct {
		Status    string
		Pid       int
		OOMKilled bool
	}
	// EffectiveCaps are what the process may do, BoundingCaps what it ever could.
	EffectiveCaps []string
	BoundingCaps  []string
	HostConfig    struct {
		Memory      int64
		MemorySwap  int64
		PidsLimit   int64
		CpuPeriod   int64
		CpuQuota    int64
		SecurityOpt []string
		Privileged  bool
		NetworkMode string
		LogConfig   struct {
			Type string
			Size string
		}
	}
	Config struct {
		Env    []string
		Labels map[string]string
	}
	NetworkSettings struct {
		IPAddress string
		Networks  map[string]struct{ IPAddress string }
	}
}

// IP is the container's address on its bridge.
func (i Inspected) IP() string {
	for _, n := range i.NetworkSettings.Networks {
		if n.IPAddress != "" {
			return n.IPAddress
		}
	}
	return i.NetworkSettings.IPAddress
}

// Inspect looks at one container by name or id.
func (c *Client) Inspect(ctx context.Context, id string) (Inspected, error) {
	var i Inspected
	return i, c.call(ctx, http.MethodGet, "/containers/"+url.PathEscape(id)+"/json", nil, &i)
}

// Images lists the names and digests of all images.
func (c *Client) Images(ctx context.Context) ([]string, error) {
	var list []struct {
		ID        string `json:"Id"`
		RepoTags  []string
		NamesHist []string `json:"NamesHistory"`
	}
	if err := c.call(ctx, http.MethodGet, "/images/json", nil, &list); err != nil {
		return nil, err
	}
	var names []string
	for _, image := range list {
		names = append(append(append(names, image.ID), image.RepoTags...), image.NamesHist...)
	}
	return names, nil
}

// Kill sends SIGKILL to a container's first process.
func (c *Client) Kill(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodPost, "/containers/"+url.PathEscape(id)+"/kill?signal=KILL", nil, nil)
}

// Remove removes a container, ending it first when it runs. One that is gone
// already is no error.
func (c *Client) Remove(ctx context.Context, id string) error {
	err := c.call(ctx, http.MethodDelete, "/containers/"+url.PathEscape(id)+"?force=true&timeout=0&v=true", nil, nil)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// Limits are one container's.
type Limits struct {
	MemoryMB      int64
	CPUMillicores int64
	Pids          int64
}

// Spec is a container to create on Podman's own bridge network.
type Spec struct {
	Name   string
	Image  string
	Env    map[string]string
	Labels map[string]string
	Limits Limits
	// NoFile and NoProc are the hard limits on files and processes.
	NoFile, NoProc uint64
	// KeptCapabilities are kept, all others dropped.
	KeptCapabilities []string
}

// Create makes a container and returns its id.
func (c *Client) Create(ctx context.Context, s Spec) (string, error) {
	memory := s.Limits.MemoryMB << 20
	body := map[string]any{
		"name": s.Name, "image": s.Image, "env": s.Env, "labels": s.Labels,
		"systemd": "false", "sdnotifyMode": "ignore", "env_host": false, "httpproxy": false,
		"netns": map[string]any{"nsmode": "bridge"},
		// As the platform asks for, so that both do the same work.
		"no_new_privileges": true, "cap_drop": []string{"ALL"}, "cap_add": s.KeptCapabilities,
		"log_configuration": map[string]any{"driver": "k8s-file", "size": 10 << 20},
		"r_limits": []map[string]any{
			{"type": "nofile", "soft": s.NoFile, "hard": s.NoFile},
			{"type": "nproc", "soft": s.NoProc, "hard": s.NoProc},
		},
		"resource_limits": map[string]any{
			"memory": map[string]any{"limit": memory, "swap": memory},
			"cpu":    map[string]any{"period": 100_000, "quota": s.Limits.CPUMillicores * 100},
			"pids":   map[string]any{"limit": s.Limits.Pids},
		},
	}
	var made struct {
		ID string `json:"Id"`
	}
	return made.ID, c.call(ctx, http.MethodPost, "/containers/create", body, &made)
}

// Start starts a container.
func (c *Client) Start(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodPost, "/containers/"+url.PathEscape(id)+"/start", nil, nil)
}

// Pull pulls an image from a registry that speaks plain HTTP.
func (c *Client) Pull(ctx context.Context, reference string) error {
	q := url.Values{"reference": {reference}, "tlsVerify": {"false"}, "policy": {"always"}, "quiet": {"true"}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/images/pull?"+q.Encode(), nil)
	if err != nil {
		return fmt.Errorf("pull %s: %w", reference, err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("pull %s: %w", reference, err)
	}
	defer response.Body.Close()
	decoder := json.NewDecoder(io.LimitReader(response.Body, maxAnswer))
	for {
		var line struct {
			Error string `json:"error"`
		}
		err := decoder.Decode(&line)
		switch {
		case errors.Is(err, io.EOF) && response.StatusCode < http.StatusBadRequest:
			return nil
		case err != nil:
			return fmt.Errorf("pull %s: status %d: %w", reference, response.StatusCode, err)
		case line.Error != "":
			return fmt.Errorf("pull %s: %s", reference, line.Error)
		}
	}
}

// Ping returns nil when the service answers.
func (c *Client) Ping(ctx context.Context) error {
	return c.call(ctx, http.MethodGet, "/info", nil, nil)
}

// call decodes a JSON answer into out, when out is not nil.
func (c *Client) call(ctx context.Context, method, path string, body, out any) error {
	var reader io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("podman %s %s: %w", method, path, err)
		}
		reader = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, base+path, reader)
	if err != nil {
		return fmt.Errorf("podman %s %s: %w", method, path, err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("podman %s %s: %w", method, path, err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	switch {
	case err != nil:
		return fmt.Errorf("podman %s %s: %w", method, path, err)
	case response.StatusCode == http.StatusNotFound:
		return fmt.Errorf("podman %s %s: %w: %s", method, path, ErrNotFound, bytes.TrimSpace(content))
	case response.StatusCode >= http.StatusBadRequest:
		return fmt.Errorf("podman %s %s: %d %s", method, path, response.StatusCode, bytes.TrimSpace(content))
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(content, out); err != nil {
		return fmt.Errorf("podman %s %s: %w", method, path, err)
	}
	return nil
}
