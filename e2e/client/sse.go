package client

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Event is one server-sent event.
type Event struct {
	ID   string
	Type string
	Data string
}

// JSON returns the event's data as a map; nil when it is not a JSON object.
func (e Event) JSON() map[string]any {
	var m map[string]any
	if json.Unmarshal([]byte(e.Data), &m) != nil {
		return nil
	}
	return m
}

// Follow reads server-sent events of a path from after lastEventID (empty for all)
// and hands each over until handle says that it has enough or ctx ends.
func (c *Client) Follow(ctx context.Context, path, lastEventID string, handle func(Event) (enough bool)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.API+path, nil)
	if err != nil {
		return fmt.Errorf("make GET %s: %w", path, err)
	}
	request.Header.Set("Accept", "text/event-stream")
	request.Header.Set("Authorization", "Bearer "+c.Token)
	if lastEventID != "" {
		request.Header.Set("Last-Event-ID", lastEventID)
	}
	response, err := c.http().Do(request)
	if err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		content, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
		return fmt.Errorf("GET %s answered %d %s", path, response.StatusCode, content)
	}
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxAnswer)
	var event Event
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "id":
			event.ID = value
		case "event":
			event.Type = value
		case "data":
			event.Data += value
		case "":
			// An empty line ends an event; one that begins with a colon is a comment.
			if lines.Text() == "" && event != (Event{}) {
				if handle(event) {
					return nil
				}
				event = Event{}
			}
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read events of %s: %w", path, err)
	}
	return fmt.Errorf("the events of %s ended: %w", path, io.EOF)
}
