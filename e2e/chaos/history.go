package chaos

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	claimv1 "github.com/slipway-paas/slipway/gen/slipway/claim/v1"
	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	// Its events are read, and say nothing of interest here.
	_ "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	eventlog "github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// Statuses, as the API says them.
const (
	statusPending   = "pending"
	statusDeploying = "deploying"
	statusRunning   = "running"
	statusStopped   = "stopped"
	statusDestroyed = "destroyed"
)

// history is what the log says, folded anew and by other code than the platform's.
type history struct {
	events      int
	last        uint64
	deployments map[string]*deployed
	order       []*deployed
	// claims are the names that deployments have taken, with their holder.
	claims map[string]string
	// requests are the kinds of the commands' events, by trace.
	requests map[string][]string
	// ids are the sequences of each event id; more than one is too many.
	ids       map[string][]uint64
	nodesLost int
	// strange is what no log should hold.
	strange []string
}

// deployed is one deployment.
type deployed struct {
	id, subdomain string
	status        string
	// secret is what the app was told when it was created.
	secret string
	// live is the release that serves, next the one on its way.
	live, next string
	// open is what was asked for and has not ended.
	open string
	// types counts its events; ends those that end a release, by release.
	types map[string]int
	ends  map[string]int
	story []string
}

// readLog reads all events from NATS itself.
func readLog(ctx context.Context, js jetstream.JetStream) ([]eventstore.Recorded, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all []eventstore.Recorded
	caughtUp := false
	err := eventlog.New(js, slog.New(slog.DiscardHandler)).Follow(ctx, 0, func(_ context.Context, batch []eventstore.Recorded) error {
		all = append(all, batch...)
		return nil
	}, func() { caughtUp = true; cancel() }, subjects.AllEvents)
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	if !caughtUp {
		return nil, fmt.Errorf("read the log: %w", context.Cause(ctx))
	}
	return all, nil
}

func fold(events []eventstore.Recorded) *history {
	h := &history{
		deployments: map[string]*deployed{}, claims: map[string]string{}, requests: map[string][]string{}, ids: map[string][]uint64{},
	}
	for _, e := range events {
		h.add(e)
	}
	return h
}

func (h *history) add(e eventstore.Recorded) {
	h.events++
	if e.Sequence <= h.last {
		h.strange = append(h.strange, fmt.Sprintf("event %d comes after event %d", e.Sequence, h.last))
	}
	h.last = e.Sequence
	if !e.Readable() {
		h.strange = append(h.strange, fmt.Sprintf("event %d cannot be read", e.Sequence))
	}
	key := e.Aggregate.String() + " " + e.ID
	h.ids[key] = append(h.ids[key], e.Sequence)
	switch p := e.Payload.(type) {
	case *claimv1.ClaimTaken:
		if !strings.HasPrefix(p.Holder, subjects.Deployment+"/") {
			break
		}
		if holder, taken := h.claims[p.Name]; taken {
			h.strange = append(h.strange, fmt.Sprintf("event %d gives %s to %s, but %s holds it", e.Sequence, p.Name, p.Holder, holder))
		}
		h.claims[p.Name] = p.Holder
	case *claimv1.ClaimReleased:
		delete(h.claims, p.Name)
	case *nodev1.NodeLost:
		h.nodesLost++
	}
	if e.Aggregate.Kind != subjects.Deployment {
		return
	}
	d := h.deployments[e.Aggregate.ID]
	if d == nil {
		d = &deployed{id: e.Aggregate.ID, types: map[string]int{}, ends: map[string]int{}}
		h.deployments[d.id] = d
		h.order = append(h.order, d)
	}
	d.types[e.Type()]++
	d.story = append(d.story, fmt.Sprintf("%s %d %s %s", e.Time.Format("15:04:05.000"), e.Sequence, e.Type(), e.ID))
	if kind := d.add(e); kind != "" {
		trace := traceOf(e.TraceParent)
		h.requests[trace] = append(h.requests[trace], kind)
		if kind == create {
			d.secret = trace
		}
	}
}

// add returns the kind of the command that the event is of, empty for others.
func (d *deployed) add(e eventstore.Recorded) (kind string) {
	switch p := e.Payload.(type) {
	case *deploymentv1.DeploymentRequested:
		kind, d.status, d.subdomain, d.next = create, statusPending, p.Subdomain, p.Release.Id
	case *deploymentv1.RestartRequested:
		kind, d.status, d.next = restart, statusDeploying, p.Release.Id
	case *deploymentv1.StopRequested:
		kind = stop
	case *deploymentv1.DestroyRequested:
		kind = destroy
	case *deploymentv1.DeploymentScheduled:
		d.status = statusDeploying
	case *deploymentv1.DeploymentRunning:
		d.ends[p.ReleaseId]++
		d.live, d.next, d.status, d.open = p.ReleaseId, "", statusRunning, ""
	case *deploymentv1.ReleaseFailed:
		d.ends[p.ReleaseId]++
		d.next, d.status, d.open = "", statusStopped, ""
		if d.live != "" {
			d.status = statusRunning
		}
	case *deploymentv1.DeploymentStopped:
		d.live, d.next, d.status, d.open = "", "", statusStopped, ""
	case *deploymentv1.DeploymentDestroyed:
		d.live, d.next, d.status, d.open = "", "", statusDestroyed, ""
	}
	if kind != "" {
		d.open = kind
	}
	return kind
}

// traceOf is the trace id of a traceparent.
func traceOf(parent string) string {
	parts := strings.Split(parent, "-")
	if len(parts) != 4 {
		return ""
	}
	return parts[1]
}

// holder is the deployment that has the name and is not destroyed, nil for none.
func (h *history) holder(subdomain string) *deployed {
	for _, d := range h.order {
		if d.subdomain == subdomain && d.status != statusDestroyed {
			return d
		}
	}
	return nil
}

// names are all that any deployment ever had.
func (h *history) names() []string {
	var names []string
	seen := map[string]bool{}
	for _, d := range h.order {
		if !seen[d.subdomain] {
			seen[d.subdomain] = true
			names = append(names, d.subdomain)
		}
	}
	return names
}
