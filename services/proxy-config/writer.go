package proxyconfig

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"google.golang.org/protobuf/proto"

	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/observe"
	"github.com/slipway-paas/slipway/libs/view"
	"github.com/slipway-paas/slipway/services/proxy-config/routing"
)

// Routes is where the routes are written; *view.View is one.
type Routes interface {
	Snapshot(ctx context.Context, filter string) ([]view.Entry[*routingv1.Route], error)
	Get(ctx context.Context, key string) (view.Entry[*routingv1.Route], bool, error)
	PutIf(ctx context.Context, key string, value *routingv1.Route, lastRevision uint64) (revision uint64, err error)
	Delete(ctx context.Context, key string) (revision uint64, err error)
}

// writer makes VIEW_routes what the fold wants, and records facts once the edges
// serve it. It is one goroutine.
type writer struct {
	*Service
	routes Routes
	// written is what the view holds, as far as is known.
	written map[string]view.Entry[*routingv1.Route]
	// revisions are those from which on an edge serves what was last written or
	// deleted for a host.
	revisions map[string]uint64
	// unsure are hosts whose last write was not answered: it may have been done.
	unsure map[string]struct{}
	// recorded keeps facts from being recorded again until they come back folded.
	recorded map[string]struct{}
	// since is when each fact that is due now was first found so.
	since    map[string]time.Time
	waiting  time.Time
	compared time.Time
}

func (w *writer) run(ctx context.Context) error {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		if err := w.step(ctx); err != nil && ctx.Err() == nil {
			w.figures.failures.Inc()
			w.deps.Log.WarnContext(ctx, "routes are not up to date, trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		case <-tick.C:
		}
	}
}

// step does what is due now; the same step again does nothing.
func (w *writer) step(ctx context.Context) error {
	if w.recheck.Swap(false) || w.deps.Now().Sub(w.compared) > w.config.Recheck {
		if err := w.compare(ctx); err != nil {
			return err
		}
	}
	var errs []error
	touched := w.state.takeHosts()
	for _, host := range slices.Sorted(maps.Keys(touched)) {
		if err := w.write(observe.WithTraceParent(ctx, touched[host]), host); err != nil {
			w.state.touch(host, touched[host])
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs[0], fmt.Errorf("%d hosts are to be written", len(errs)))
	}
	w.ready.Store(true)
	return w.confirm(ctx)
}

// compare reads the whole view, so that only differences are written: hosts that
// the log does not know are looked at too, and go.
func (w *writer) compare(ctx context.Context) error {
	entries, err := w.routes.Snapshot(ctx, ">")
	if err != nil {
		w.recheck.Store(true)
		return fmt.Errorf("reading the routes: %w", err)
	}
	w.compared = w.deps.Now()
	w.state.touchAll()
	w.written = make(map[string]view.Entry[*routingv1.Route], len(entries))
	for _, e := range entries {
		w.written[e.Key] = e
		w.revisions[e.Key] = e.Revision
		w.state.touch(e.Key, "")
	}
	return nil
}

func (w *writer) write(ctx context.Context, host string) error {
	if _, unsure := w.unsure[host]; unsure {
		if err := w.readAgain(ctx, host); err != nil {
			return err
		}
	}
	want := w.state.wanted(host)
	have, there := w.written[host]
	switch {
	case want == nil && !there:
		return nil
	case want != nil && there && sameRoute(want, have.Value):
		return nil
	case there && have.Value.GetSequence() > w.state.sequence():
		w.deps.Log.ErrorContext(ctx, "the view is ahead of the log, its route is left as it is",
			"host", host, "route_sequence", have.Value.GetSequence(), "log_sequence", w.state.sequence())
		return nil
	case want == nil:
		return w.delete(ctx, host)
	}
	return w.put(ctx, host, want, have)
}

func (w *writer) put(ctx context.Context, host string, want *routingv1.Route, have view.Entry[*routingv1.Route]) error {
	ctx, span := w.startWrite(ctx, "put", host)
	defer span.End()
	if span.IsRecording() {
		span.SetAttributes(attribute.String("slipway.route.state", want.GetState().String()), attribute.Int("slipway.route.upstreams", len(want.GetUpstreams())))
	}
	return observe.Failed(span, w.replace(ctx, host, want, have))
}

func (w *writer) replace(ctx context.Context, host string, want *routingv1.Route, have view.Entry[*routingv1.Route]) error {
	revision, err := w.routes.PutIf(ctx, host, want, have.Revision)
	if errors.Is(err, view.ErrConflict) {
		return errors.Join(fmt.Errorf("writing the route of %s: %w", host, err), w.readAgain(ctx, host))
	}
	if err != nil {
		w.unsure[host] = struct{}{}
		return fmt.Errorf("writing the route of %s: %w", host, err)
	}
	w.written[host] = view.Entry[*routingv1.Route]{Key: host, Value: want, Revision: revision}
	w.revisions[host] = revision
	w.figures.writes.Inc()
	w.deps.Log.InfoContext(ctx, "route written", "host", host, "state", want.GetState().String(),
		"upstreams", len(want.GetUpstreams()), "revision", revision, "sequence", want.GetSequence())
	return nil
}

func (w *writer) delete(ctx context.Context, host string) error {
	ctx, span := w.startWrite(ctx, "delete", host)
	defer span.End()
	revision, err := w.routes.Delete(ctx, host)
	if observe.Failed(span, err) != nil {
		return fmt.Errorf("deleting the route of %s: %w", host, err)
	}
	delete(w.written, host)
	w.revisions[host] = revision
	w.figures.writes.Inc()
	w.deps.Log.InfoContext(ctx, "route deleted", "host", host, "revision", revision)
	return nil
}

// readAgain learns what another writer, or a write whose answer was lost, left.
func (w *writer) readAgain(ctx context.Context, host string) error {
	e, there, err := w.routes.Get(ctx, host)
	if err != nil {
		return fmt.Errorf("reading the route of %s: %w", host, err)
	}
	delete(w.unsure, host)
	if !there {
		delete(w.written, host)
		return nil
	}
	w.written[host] = e
	w.revisions[host] = e.Revision
	return nil
}

// confirm records the facts whose routes every living edge serves.
func (w *writer) confirm(ctx context.Context) error {
	facts := w.state.due()
	w.figures.unconfirmed.Set(float64(len(facts)))
	w.forgetRecorded(facts)
	w.noteDue(facts)
	if len(facts) == 0 {
		w.waiting = time.Time{}
		maps.DeleteFunc(w.revisions, func(host string, _ uint64) bool {
			_, there := w.written[host]
			return !there
		})
		return nil
	}
	applied, living := w.edges.applied()
	if living == 0 {
		w.sayWaiting(ctx, len(facts))
		return nil
	}
	w.waiting = time.Time{}
	for _, fact := range facts {
		if _, done := w.recorded[fact.ID]; done || !w.shows(fact) {
			continue
		}
		revision, err := w.revision(ctx, fact)
		if err != nil {
			return err
		}
		if applied < revision {
			continue
		}
		if err := w.record(ctx, fact, revision); err != nil {
			return err
		}
	}
	return nil
}

// shows reports whether the view says what the fact says. The log may have moved
// on since the hosts were written: then they are written first.
func (w *writer) shows(fact routing.Fact) bool {
	for _, host := range fact.Hosts {
		e, there := w.written[host]
		ours := there && e.Value.GetDeploymentId() == fact.Aggregate.ID
		if fact.Removed != nil {
			if ours && len(e.Value.GetUpstreams()) > 0 {
				return false
			}
			continue
		}
		if !ours || e.Value.GetReleaseId() != fact.Bound.GetReleaseId() ||
			!slices.EqualFunc(e.Value.GetUpstreams(), fact.Bound.GetInstanceIds(),
				func(u *routingv1.Upstream, id string) bool { return u.GetInstanceId() == id }) {
			return false
		}
	}
	return true
}

// revision is the one from which on an edge serves all of the fact's hosts. A host
// deleted in an earlier life is deleted once more, to have one.
func (w *writer) revision(ctx context.Context, fact routing.Fact) (uint64, error) {
	var last uint64
	for _, host := range fact.Hosts {
		if _, known := w.revisions[host]; !known {
			if err := w.delete(ctx, host); err != nil {
				return 0, err
			}
		}
		last = max(last, w.revisions[host])
	}
	return last, nil
}

func (w *writer) record(ctx context.Context, fact routing.Fact, revision uint64) error {
	payload := fact.Payload(revision)
	ctx, span := w.startFact(ctx, fact, payload, revision)
	defer span.End()
	traceParent := observe.TraceParent(ctx)
	if traceParent == "" {
		traceParent = fact.TraceParent
	}
	_, err := w.deps.Store.Record(ctx, eventstore.Event{
		Aggregate: fact.Aggregate, ID: fact.ID, Payload: payload, Time: w.deps.Now(), Source: source,
		Causation: fact.Causation, Correlation: fact.Correlation, TraceParent: traceParent,
	})
	if observe.Failed(span, err) != nil {
		return fmt.Errorf("recording %s of %s: %w", payload.ProtoReflect().Descriptor().Name(), fact.Aggregate, err)
	}
	w.recorded[fact.ID] = struct{}{}
	w.figures.facts.Inc()
	w.deps.Log.InfoContext(ctx, "every living edge has applied the routes", "fact", string(payload.ProtoReflect().Descriptor().Name()),
		"deployment", fact.Aggregate.ID, "hosts", fact.Hosts, "revision", revision)
	return nil
}

// forgetRecorded drops what has come back folded: it is due no more.
func (w *writer) forgetRecorded(due []routing.Fact) {
	if len(w.recorded) == 0 {
		return
	}
	still := make(map[string]struct{}, len(w.recorded))
	for _, fact := range due {
		if _, ok := w.recorded[fact.ID]; ok {
			still[fact.ID] = struct{}{}
		}
	}
	w.recorded = still
}

// noteDue keeps since when each fact is due, and drops those that are not any more.
func (w *writer) noteDue(due []routing.Fact) {
	since := make(map[string]time.Time, len(due))
	for _, fact := range due {
		at, known := w.since[fact.ID]
		if !known {
			at = w.deps.Now()
		}
		since[fact.ID] = at
	}
	w.since = since
}

// sayWaiting tells the operator once in a while that no edge lives.
func (w *writer) sayWaiting(ctx context.Context, facts int) {
	const every = 10 * time.Second
	now := w.deps.Now()
	if w.waiting.IsZero() {
		// Edges that are still starting are not worth a line.
		w.waiting = now.Add(w.config.EdgeSilence - every)
		return
	}
	if now.Sub(w.waiting) < every {
		return
	}
	w.waiting = now
	w.deps.Log.WarnContext(ctx, "no edge lives: deployments cannot go live until one does; is slipway-edge running and connected?",
		"deployments", facts)
}

// sameRoute compares all but the sequence, which alone is no reason to write.
func sameRoute(a, b *routingv1.Route) bool {
	if a.GetSequence() == b.GetSequence() {
		return proto.Equal(a, b)
	}
	c := proto.CloneOf(b)
	c.Sequence = a.GetSequence()
	return proto.Equal(a, c)
}
