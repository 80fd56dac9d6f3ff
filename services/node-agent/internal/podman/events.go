package podman

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/containers/podman/v5/pkg/bindings"
	"github.com/containers/podman/v5/pkg/domain/entities/types"

	"github.com/slipway-paas/slipway/services/node-agent/runtime"
)

// Events implements runtime.Runtime.
func (p *Podman) Events(ctx context.Context) (<-chan runtime.Event, error) {
	stream := connected{ctx, p.connection}
	conn, err := bindings.GetClient(stream)
	if err != nil {
		return nil, fmt.Errorf("podman events: %w", err)
	}
	filters, err := json.Marshal(map[string][]string{
		"type":  {"container"},
		"event": {"start", "died", "remove"},
		"label": {runtime.LabelOwner + "=" + p.owner},
	})
	if err != nil {
		return nil, fmt.Errorf("podman events: %w", err)
	}
	query := url.Values{"stream": {"true"}, "filters": {string(filters)}}
	response, err := conn.DoRequest(stream, nil, http.MethodGet, "/events", query, nil)
	if err != nil {
		return nil, fmt.Errorf("podman events: %w", err)
	}
	if !response.IsSuccess() {
		defer response.Body.Close()
		return nil, fmt.Errorf("podman events: %w", response.Process(nil))
	}
	out := make(chan runtime.Event, 64)
	go func() {
		defer close(out)
		defer response.Body.Close()
		decoder := json.NewDecoder(response.Body)
		for {
			var e types.Event
			if err := decoder.Decode(&e); err != nil {
				return
			}
			event, ok := p.eventFrom(e)
			if !ok {
				continue
			}
			select {
			case out <- event:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

func (p *Podman) eventFrom(e types.Event) (runtime.Event, bool) {
	kinds := map[string]runtime.EventType{
		"start": runtime.EventStarted, "died": runtime.EventDied, "die": runtime.EventDied, "remove": runtime.EventRemoved,
	}
	kind, ok := kinds[string(e.Action)]
	if !ok || e.Actor.Attributes[runtime.LabelOwner] != p.owner {
		return runtime.Event{}, false
	}
	if kind == runtime.EventRemoved {
		p.forget(e.Actor.ID)
	}
	return runtime.Event{
		Type: kind, ContainerID: e.Actor.ID, Labels: e.Actor.Attributes, At: time.Unix(0, e.TimeNano),
	}, true
}
