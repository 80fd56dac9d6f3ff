// Package directory is all apps and their domains, folded in memory from the log: about
// 1 kB each. It is safe for concurrent use.
package directory

import (
	"context"
	"slices"
	"strings"
	"sync"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	dnsv1 "github.com/slipway-paas/slipway/gen/slipway/dns/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/domains/domain"
)

// App is a deployment as far as its domains are concerned.
type App struct {
	ID, Org, Subdomain, Host string
	// Allowed: its tier has custom domains.
	Allowed bool
	// Asked is the domain that it was asked for with, Event and Actor are of that request.
	Asked, Event, Actor, Operator string
	// Gone: it was destroyed.
	Gone bool
}

// Directory is all of them. Use New.
type Directory struct {
	mu      sync.RWMutex
	apps    map[string]App
	bySlug  map[slug]string
	domains map[subjects.Aggregate]domain.State
	// known are the ids of all domains that there ever were.
	known  map[string]subjects.Aggregate
	byApp  map[string]map[subjects.Aggregate]bool
	byName map[string]map[subjects.Aggregate]bool
	// recorded are the domains, and whose, that the platform's own zones hold a record of.
	recorded map[string]string
	position uint64
	moved    chan struct{} // closed and replaced when position grows
}

type slug struct{ org, subdomain string }

// New returns one of no events.
func New() *Directory {
	return &Directory{
		apps: map[string]App{}, bySlug: map[slug]string{}, domains: map[subjects.Aggregate]domain.State{}, known: map[string]subjects.Aggregate{},
		byApp: map[string]map[subjects.Aggregate]bool{}, byName: map[string]map[subjects.Aggregate]bool{},
		recorded: map[string]string{}, moved: make(chan struct{}),
	}
}

// Apply folds events in, and returns the domains that they are of, those that there is a
// record of now, and the apps that came or went.
func (d *Directory) Apply(events []eventstore.Recorded) (domains, recorded []subjects.Aggregate, apps []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range events {
		if e.Sequence <= d.position {
			continue
		}
		d.position = e.Sequence
		switch e.Aggregate.Kind {
		case subjects.Deployment:
			if d.app(e) {
				apps = append(apps, e.Aggregate.ID)
			}
		case subjects.Domain:
			d.domain(e)
			domains = append(domains, e.Aggregate)
		case subjects.DNSRecord:
			if a, now := d.record(e); now {
				recorded = append(recorded, a)
			}
		}
	}
	close(d.moved)
	d.moved = make(chan struct{})
	return domains, recorded, apps
}

// app reports whether the event says that an app came or went.
func (d *Directory) app(rec eventstore.Recorded) bool {
	id := rec.Aggregate.ID
	switch e := rec.Payload.(type) {
	case *deploymentv1.DeploymentRequested:
		if _, again := d.apps[id]; again {
			return false
		}
		d.apps[id] = App{
			ID: id, Org: rec.Aggregate.Org, Subdomain: e.GetSubdomain(), Host: subjects.HostKey(e.GetHost()), Allowed: e.GetTier().GetCustomDomainAllowed(),
			Asked: e.GetCustomDomain(), Event: rec.ID, Actor: rec.Actor, Operator: e.GetOperatorId(),
		}
		d.bySlug[slug{rec.Aggregate.Org, e.GetSubdomain()}] = id
		return true
	case *deploymentv1.DestroyRequested, *deploymentv1.DeploymentDestroyed:
		app, known := d.apps[id]
		if !known || app.Gone {
			return false
		}
		app.Gone = true
		d.apps[id] = app
		if key := (slug{app.Org, app.Subdomain}); d.bySlug[key] == id {
			delete(d.bySlug, key)
		}
		d.forget(id)
		return true
	}
	return false
}

// record reports of which domain a zone that the platform holds has a record now.
func (d *Directory) record(rec eventstore.Recorded) (a subjects.Aggregate, now bool) {
	switch e := rec.Payload.(type) {
	case *dnsv1.RecordApplied:
		id := e.GetRecord().GetDomainId()
		d.recorded[id] = rec.Aggregate.Org
		return subjects.Of(rec.Aggregate.Org, subjects.Domain, id), id != ""
	case *dnsv1.RecordFailed:
		delete(d.recorded, e.GetRecord().GetDomainId())
	case *dnsv1.RecordRemoved:
		delete(d.recorded, e.GetRecord().GetDomainId())
	}
	return subjects.Aggregate{}, false
}

// Recorded reports whether a zone that the platform holds, and lets the org use, has the
// record that leads the domain to its app.
func (d *Directory) Recorded(org, id string) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return id != "" && d.recorded[id] == org
}

// forget drops an app that is gone and has no domain left.
func (d *Directory) forget(id string) {
	if d.apps[id].Gone && len(d.byApp[id]) == 0 {
		delete(d.apps, id)
	}
}

func (d *Directory) domain(rec eventstore.Recorded) {
	a := rec.Aggregate
	before, was := d.domains[a]
	if _, ended := d.known[a.ID]; ended && !was {
		return
	}
	state := domain.Evolve(before, rec)
	if state.ID == a.ID && state.Live() {
		d.known[a.ID], d.domains[a] = a, state
		add(d.byApp, state.DeploymentID, a)
		add(d.byName, state.Name, a)
		return
	}
	delete(d.domains, a)
	remove(d.byApp, before.DeploymentID, a)
	remove(d.byName, before.Name, a)
	d.forget(before.DeploymentID)
}

func add(index map[string]map[subjects.Aggregate]bool, key string, a subjects.Aggregate) {
	if index[key] == nil {
		index[key] = map[subjects.Aggregate]bool{}
	}
	index[key][a] = true
}

func remove(index map[string]map[subjects.Aggregate]bool, key string, a subjects.Aggregate) {
	delete(index[key], a)
	if len(index[key]) == 0 {
		delete(index, key)
	}
}

// WaitFor returns once it has what was written up to that sequence. Errors: ctx's.
func (d *Directory) WaitFor(ctx context.Context, sequence uint64) error {
	for {
		d.mu.RLock()
		position, moved := d.position, d.moved
		d.mu.RUnlock()
		if position >= sequence {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-moved:
		}
	}
}

// App is the one of that id.
func (d *Directory) App(id string) (App, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	app, ok := d.apps[id]
	return app, ok
}

// Called is an org's app of that id or subdomain.
func (d *Directory) Called(org, called string) (App, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	app, ok := d.apps[called]
	if !ok {
		app, ok = d.apps[d.bySlug[slug{org, called}]]
	}
	return app, ok && app.Org == org && !app.Gone
}

// Get is the domain of that aggregate.
func (d *Directory) Get(a subjects.Aggregate) (domain.State, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	state, ok := d.domains[a]
	return state, ok
}

// Known is whose the domain of that id is, or was.
func (d *Directory) Known(id string) (subjects.Aggregate, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	a, ok := d.known[id]
	return a, ok
}

// Of are an app's domains, the oldest first; Primary is set of one at most.
func (d *Directory) Of(app string) []domain.State {
	d.mu.RLock()
	defer d.mu.RUnlock()
	all := d.sorted(d.byApp[app])
	last := uint64(0)
	for _, s := range all {
		if s.Primary {
			last = max(last, s.PrimarySince)
		}
	}
	for i := range all {
		all[i].Primary = all[i].Primary && all[i].PrimarySince == last
	}
	return all
}

// Named are the domains of that name, of whatever org.
func (d *Directory) Named(name string) []domain.State {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.sorted(d.byName[name])
}

func (d *Directory) sorted(of map[subjects.Aggregate]bool) []domain.State {
	out := make([]domain.State, 0, len(of))
	for a := range of {
		out = append(out, d.domains[a])
	}
	slices.SortFunc(out, func(a, b domain.State) int {
		if c := a.AddedAt.Compare(b.AddedAt); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out
}

// Count is how many domains have that status.
func (d *Directory) Count(status domain.Status) int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	n := 0
	for _, s := range d.domains {
		if s.Status == status {
			n++
		}
	}
	return n
}
