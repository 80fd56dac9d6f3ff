// Package domains knows which custom domains deployments have, from the log: to show
// the primary one, and to say which app has a name. It is safe for concurrent use.
package domains

import (
	"context"
	"sync"

	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// Domain is one that a deployment has.
type Domain struct {
	Deployment, Name string
	// primarySince is the event that made it the primary one; 0 when it is not. Of two
	// the later counts.
	primarySince uint64
}

// Directory is all of them.
type Directory struct {
	mu      sync.RWMutex
	domains map[string]Domain // by id
	of      map[string]map[string]bool
	// had are the deployments that ever had one.
	had      map[string]bool
	position uint64
	moved    chan struct{} // closed and replaced when position grows
}

// New returns one without any.
func New() *Directory {
	return &Directory{domains: map[string]Domain{}, of: map[string]map[string]bool{}, had: map[string]bool{}, moved: make(chan struct{})}
}

// Apply folds an event of a domain in.
func (d *Directory) Apply(rec eventstore.Recorded) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if rec.Sequence <= d.position {
		return
	}
	d.position = rec.Sequence
	close(d.moved)
	d.moved = make(chan struct{})
	id := rec.Aggregate.ID
	if e, ok := rec.Payload.(*domainv1.DomainAdded); ok {
		if _, again := d.domains[id]; again {
			return
		}
		added := Domain{Deployment: e.GetDeploymentId(), Name: e.GetName()}
		if e.GetPrimary() {
			added.primarySince = rec.Sequence
		}
		if d.of[added.Deployment] == nil {
			d.of[added.Deployment] = map[string]bool{}
		}
		d.domains[id], d.of[added.Deployment][id], d.had[added.Deployment] = added, true, true
		return
	}
	known, ok := d.domains[id]
	if !ok {
		return
	}
	switch rec.Payload.(type) {
	case *domainv1.PrimaryDomainSet:
		known.primarySince = rec.Sequence
	case *domainv1.PrimaryDomainUnset:
		known.primarySince = 0
	case *domainv1.DomainRemoved, *domainv1.DomainLost:
		delete(d.domains, id)
		delete(d.of[known.Deployment], id)
		if len(d.of[known.Deployment]) == 0 {
			delete(d.of, known.Deployment)
		}
		return
	}
	d.domains[id] = known
}

// Primary is the name of a deployment's primary domain, empty for none; known is false
// when it never had a domain.
func (d *Directory) Primary(deployment string) (name string, known bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var last uint64
	for id := range d.of[deployment] {
		if of := d.domains[id]; of.primarySince > last {
			name, last = of.Name, of.primarySince
		}
	}
	return name, d.had[deployment]
}

// Find returns the holder of a claim, when that is a domain.
func (d *Directory) Find(holder string) (Domain, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	prefix := subjects.Domain + "/"
	if len(holder) <= len(prefix) || holder[:len(prefix)] != prefix {
		return Domain{}, false
	}
	of, ok := d.domains[holder[len(prefix):]]
	return of, ok
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
