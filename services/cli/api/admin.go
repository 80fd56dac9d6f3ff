package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"
)

// What answers when it is done is bounded by these.
const (
	rebuildTimeout  = 2 * time.Hour
	rotationTimeout = time.Hour
)

const admin = "/api/v1/admin"

// Node is a machine of the platform: memory in MB, CPU in millicores.
type Node struct {
	NodeID            string     `json:"node_id"`
	Status            string     `json:"status"`
	MemoryMB          uint32     `json:"memory_mb"`
	CPUMillicores     uint32     `json:"cpu_millicores"`
	UsedMemoryMB      uint32     `json:"used_memory_mb"`
	UsedCPUMillicores uint32     `json:"used_cpu_millicores"`
	Instances         uint32     `json:"instances"`
	SeenAt            *time.Time `json:"seen_at"`
}

// Projection is how far rows are that are made from the log.
type Projection struct {
	Name        string `json:"name"`
	Version     uint32 `json:"version"`
	Checkpoint  uint32 `json:"checkpoint"`
	Trouble     string `json:"trouble"`
	DeadLetters uint32 `json:"dead_letters"`
	Rebuild     *struct {
		Position uint32 `json:"position"`
		Target   uint32 `json:"target"`
	} `json:"rebuild"`
}

// Rebuilt is what came of a rebuild.
type Rebuilt struct {
	Name        string   `json:"name"`
	Events      uint32   `json:"events"`
	Rows        uint32   `json:"rows"`
	Identical   bool     `json:"identical"`
	Differences []string `json:"differences"`
	Seconds     float64  `json:"seconds"`
	Swapped     bool     `json:"swapped"`
}

// RotatedKeys is what a rotation of the master key did. Key, Dropped and Old are names.
type RotatedKeys struct {
	Key        string   `json:"key"`
	Resumed    bool     `json:"resumed"`
	DataKeys   uint32   `json:"data_keys"`
	Rewrapped  uint32   `json:"rewrapped"`
	Unreadable uint32   `json:"unreadable"`
	Dropped    []string `json:"dropped"`
	Old        []string `json:"old"`
}

// DeadLetter is an event that a projection could not take in. Data is there when one
// is asked for.
type DeadLetter struct {
	ID         string          `json:"id"`
	Projection string          `json:"projection"`
	Sequence   uint32          `json:"sequence"`
	EventType  string          `json:"event_type"`
	Subject    string          `json:"subject"`
	Error      string          `json:"error"`
	FailedAt   *time.Time      `json:"failed_at"`
	Data       json.RawMessage `json:"data"`
}

// Nodes lists the platform's machines.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	var res struct{ Nodes []Node }
	err := c.call(ctx, http.MethodGet, admin+"/nodes", nil, &res)
	return res.Nodes, err
}

// Drain moves a node's instances away and lets it take no more. It answers at once.
func (c *Client) Drain(ctx context.Context, id string) (Node, error) {
	return c.node(ctx, id, "drain")
}

// Uncordon lets a node take instances again.
func (c *Client) Uncordon(ctx context.Context, id string) (Node, error) {
	return c.node(ctx, id, "uncordon")
}

func (c *Client) node(ctx context.Context, id, verb string) (Node, error) {
	var res struct{ Node Node }
	err := c.call(ctx, http.MethodPost, admin+"/nodes/"+url.PathEscape(id)+"/"+verb, nil, &res)
	return res.Node, err
}

// Projection says how far rows are, and a rebuild of them.
func (c *Client) Projection(ctx context.Context, name string) (Projection, error) {
	var res struct{ Projection Projection }
	err := c.call(ctx, http.MethodGet, admin+"/projections/"+url.PathEscape(name), nil, &res)
	return res.Projection, err
}

// Rebuild makes rows anew beside the live ones, compares and swaps them; it answers
// when that is done. With accept it swaps also when they differ.
func (c *Client) Rebuild(ctx context.Context, name string, accept bool) (Rebuilt, error) {
	path := admin + "/projections/" + url.PathEscape(name) + "/rebuild"
	if accept {
		path += "?accept_differences=true"
	}
	var res Rebuilt
	err := c.callWithin(ctx, rebuildTimeout, http.MethodPost, path, nil, &res)
	return res, err
}

// DeadLetters lists those that wait, the oldest first.
func (c *Client) DeadLetters(ctx context.Context) ([]DeadLetter, error) {
	var res struct {
		DeadLetters []DeadLetter `json:"dead_letters"`
	}
	err := c.call(ctx, http.MethodGet, admin+"/dead-letters", nil, &res)
	return res.DeadLetters, err
}

// DeadLetter shows one with its data.
func (c *Client) DeadLetter(ctx context.Context, id string) (DeadLetter, error) {
	return c.letter(ctx, http.MethodGet, id, "")
}

// Replay takes a dead letter in after all.
func (c *Client) Replay(ctx context.Context, id string) (DeadLetter, error) {
	return c.letter(ctx, http.MethodPost, id, "/replay")
}

func (c *Client) letter(ctx context.Context, method, id, verb string) (DeadLetter, error) {
	var res struct {
		DeadLetter DeadLetter `json:"dead_letter"`
	}
	err := c.call(ctx, method, admin+"/dead-letters/"+url.PathEscape(id)+verb, nil, &res)
	return res.DeadLetter, err
}

// Drop gives a dead letter up for good and returns what the API says of it.
func (c *Client) Drop(ctx context.Context, id string) (message string, err error) {
	var res struct{ Message string }
	err = c.call(ctx, http.MethodDelete, admin+"/dead-letters/"+url.PathEscape(id), nil, &res)
	return res.Message, err
}

// RotateKeys wraps every data key with a new master key; it answers when that is done.
func (c *Client) RotateKeys(ctx context.Context) (RotatedKeys, error) {
	var res RotatedKeys
	err := c.callWithin(ctx, rotationTimeout, http.MethodPost, admin+"/keys/rotate", nil, &res)
	return res, err
}
