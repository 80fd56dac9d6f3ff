package sim

import (
	"cmp"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
)

// short names say whose an id is, and are the same in each run of a seed.
func (w *world) short(id string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if name, ok := w.names[id]; ok {
		return name
	}
	if strings.HasPrefix(id, "subdomain-") || strings.HasPrefix(id, "custom_domain-") {
		return id
	}
	return "new"
}

func (w *world) shortKey(key string) string {
	parts := strings.Split(key, ".")
	for i, part := range parts {
		w.mu.Lock()
		parts[i] = cmp.Or(w.names[part], part)
		w.mu.Unlock()
	}
	return strings.Join(parts, ".")
}

func (w *world) shortInstance(payload proto.Message) string {
	if f, ok := payload.(interface{ GetInstanceId() string }); ok {
		return w.short(f.GetInstanceId())
	}
	if f, ok := payload.(interface{ GetReleaseId() string }); ok {
		return w.short(f.GetReleaseId())
	}
	return ""
}

// baptise gives short names to what an event begins.
func (w *world) baptise(e eventstore.Recorded) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.names[e.Aggregate.ID]
	switch f := e.Payload.(type) {
	case *deploymentv1.DeploymentRequested:
		d = fmt.Sprintf("d%d", len(w.createOf)+1)
		w.names[f.DeploymentId] = d
		for n := range w.plan.items {
			if i := &w.plan.items[n]; i.id == f.AppId {
				w.createOf[f.DeploymentId], w.idOf[i.of], w.ownerOf[i.of] = i, f.DeploymentId, f.OperatorId
			}
		}
		w.names[f.Release.Id], w.numberOf[f.Release.Id] = d+".r1", 1
	case *deploymentv1.RestartRequested:
		w.names[f.Release.Id], w.numberOf[f.Release.Id] = fmt.Sprintf("%s.r%d", d, f.Release.Number), f.Release.Number
	case *deploymentv1.RollbackRequested:
		w.names[f.Release.Id], w.numberOf[f.Release.Id] = fmt.Sprintf("%s.r%d", d, f.Release.Number), w.numberOf[w.releaseOf(e.Aggregate.ID, f.FromReleaseNumber)]
	case *deploymentv1.DeploymentScheduled:
		for n, p := range f.Placements {
			name := fmt.Sprintf("%s.i%d", w.names[f.ReleaseId], n+1)
			if s := w.truth.states[e.Aggregate.ID]; s.Live != nil && s.Live.Id == f.ReleaseId {
				name = fmt.Sprintf("%s.s%d", w.names[f.ReleaseId], len(w.names))
			}
			w.names[p.InstanceId] = name
		}
	case *deploymentv1.InstancesRescheduled:
		for _, p := range f.Placements {
			w.names[p.InstanceId] = fmt.Sprintf("%s.m%d", w.names[f.ReleaseId], len(w.names))
		}
	}
}

// releaseOf is the id of a deployment's release of that number.
func (w *world) releaseOf(deployment string, number uint32) string {
	for _, r := range w.truth.states[deployment].History {
		if r.Number == number {
			return r.ID
		}
	}
	return ""
}
