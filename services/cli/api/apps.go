package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Process is one process type of an app.
type Process struct {
	Type    string `json:"type"`
	Command string `json:"command"`
	Count   int    `json:"count"`
	Status  string `json:"status"`
}

// Release is one entry of an app's history.
type Release struct {
	Version       int        `json:"version"`
	Image         string     `json:"image"`
	ConfigVersion string     `json:"config_version"`
	Status        string     `json:"status"`
	CreatedAt     *time.Time `json:"created_at"`
	CreatedBy     string     `json:"created_by"`
}

// Processes lists the app's process types.
func (c *Client) Processes(ctx context.Context, app string) ([]Process, error) {
	var res []Process
	err := c.call(ctx, http.MethodGet, appPath(app, "ps"), nil, &res)
	return res, err
}

// Scale changes how many instances the process types have.
func (c *Client) Scale(ctx context.Context, app string, counts map[string]int) ([]Process, error) {
	var res []Process
	err := c.call(ctx, http.MethodPost, appPath(app, "ps/scale"), map[string]any{"processes": counts}, &res)
	return res, err
}

// Releases lists the app's releases, newest first.
func (c *Client) Releases(ctx context.Context, app string) ([]Release, error) {
	var res []Release
	err := c.call(ctx, http.MethodGet, appPath(app, "releases"), nil, &res)
	return res, err
}

// Rollback rolls out what an older release was; version 0 is the last that ran before.
func (c *Client) Rollback(ctx context.Context, app string, version int) (Release, error) {
	body := map[string]any{}
	if version != 0 {
		body["version"] = version
	}
	var res Release
	err := c.call(ctx, http.MethodPost, appPath(app, "rollback"), body, &res)
	return res, err
}

func appPath(app, what string) string { return "/api/v1/apps/" + url.PathEscape(app) + "/" + what }
