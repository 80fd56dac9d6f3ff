package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// maxEvent bounds one event, in bytes.
	maxEvent = 4 << 20
	// silence is after how long without even a heartbeat a stream counts as dead.
	silence = 45 * time.Second
	// maxFailures is how often in a row a stream may fail before Follow gives up.
	maxFailures = 30
)

// Event is one event of a deployment.
type Event struct {
	Sequence uint64    `json:"sequence"`
	ID       string    `json:"id"`
	Type     string    `json:"type"`
	Source   string    `json:"source"`
	Time     time.Time `json:"time"`
	Actor    string    `json:"actor"`
	// Data is the event's payload, whose fields depend on Type.
	Data map[string]any `json:"data"`
	// Raw is the event as it was sent.
	Raw json.RawMessage `json:"-"`
}

// ErrStop ends Follow or Past from within handle, without an error.
var ErrStop = errors.New("enough events")

// errCaughtUp ends a stream once it holds nothing more from the past.
var errCaughtUp = errors.New("caught up")

// Past hands over the deployment's events after that sequence that have happened.
func (c *Client) Past(ctx context.Context, id string, after uint64, handle func(Event) error) error {
	err := c.stream(ctx, id, &after, false, handle)
	if errors.Is(err, errCaughtUp) || errors.Is(err, ErrStop) {
		return nil
	}
	return err
}

// Follow hands over the deployment's events after that sequence and then each new
// one, until ctx ends (nil) or handle fails. A stream that breaks is resumed from
// the last event, so that none is missed and none comes twice; what the API refuses
// ends it.
func (c *Client) Follow(ctx context.Context, id string, after uint64, handle func(Event) error) error {
	failures := 0
	for {
		before := after
		err := c.stream(ctx, id, &after, true, handle)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrStop):
			return nil
		case err != nil && !mayPass(err):
			return err
		}
		if failures++; after > before {
			failures = 1
		}
		if failures > maxFailures {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(time.Duration(failures)*200*time.Millisecond, 5*time.Second)):
		}
	}
}

// mayPass tells a stream that broke from an answer that will stay the same.
func mayPass(err error) bool {
	var refused *Problem
	if errors.As(err, &refused) {
		return refused.Status >= http.StatusInternalServerError || refused.Status == http.StatusTooManyRequests
	}
	var unreachable *Unreachable
	return errors.As(err, &unreachable) || errors.Is(err, errBroken)
}

var errBroken = errors.New("the event stream broke")

// stream reads one connection to its end and moves after along.
func (c *Client) stream(ctx context.Context, id string, after *uint64, live bool, handle func(Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watchdog := time.AfterFunc(silence, cancel)
	defer watchdog.Stop()
	header := http.Header{"Accept": {"text/event-stream"}}
	if *after > 0 {
		header.Set("Last-Event-Id", strconv.FormatUint(*after, 10))
	}
	res, err := c.send(ctx, http.MethodGet, "/api/deploy/apps/"+url.PathEscape(id)+"/events", nil, header)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(make([]byte, 0, 64<<10), maxEvent)
	for lines.Scan() {
		watchdog.Reset(silence)
		line := lines.Text()
		if line == ": caught up" && !live {
			return errCaughtUp
		}
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		var event Event
		if err := json.Unmarshal([]byte(data), &event); err != nil {
			return fmt.Errorf("read an event: %w", err)
		}
		event.Raw = json.RawMessage(data)
		if event.Sequence <= *after {
			continue
		}
		if err := handle(event); err != nil {
			return err
		}
		*after = event.Sequence
	}
	if err := lines.Err(); err != nil {
		return errors.Join(errBroken, err)
	}
	return errors.Join(errBroken, io.ErrUnexpectedEOF)
}
