package proxyconfig

import (
	"maps"
	"slices"
	"sync"

	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/services/proxy-config/routing"
)

// state is the fold and what has changed in it since it was last acted upon. The
// follower writes to it, the writer takes from it.
type state struct {
	mu   sync.Mutex
	fold *routing.Fold
	// hosts may need another route; each has the traceparent of the event that says so.
	hosts map[string]string
	// deployments may need another fact.
	deployments map[string]struct{}
}

func newState() *state {
	return &state{fold: routing.New(), hosts: map[string]string{}, deployments: map[string]struct{}{}}
}

func (s *state) apply(batch []eventstore.Recorded) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rec := range batch {
		id, hosts := s.fold.Apply(rec)
		if id == "" {
			continue
		}
		s.deployments[id] = struct{}{}
		for _, h := range hosts {
			s.hosts[h] = rec.TraceParent
		}
	}
}

// touch makes a host be looked at (again), in that trace if there is no newer one.
func (s *state) touch(host, traceParent string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, newer := s.hosts[host]; !newer {
		s.hosts[host] = traceParent
	}
}

// touchAll makes every host be looked at again.
func (s *state) touchAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, host := range s.fold.Hosts() {
		if _, touched := s.hosts[host]; !touched {
			s.hosts[host] = ""
		}
	}
}

// takeHosts returns the hosts to look at, each with a traceparent, and forgets them.
func (s *state) takeHosts() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	hosts := s.hosts
	s.hosts = map[string]string{}
	return hosts
}

func (s *state) wanted(host string) *routingv1.Route {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fold.Wanted(host)
}

// due returns the facts that are to be recorded. A deployment of which nothing is
// due is not looked at again before its next event.
func (s *state) due() []routing.Fact {
	s.mu.Lock()
	defer s.mu.Unlock()
	var facts []routing.Fact
	for _, id := range slices.Sorted(maps.Keys(s.deployments)) {
		fact, ok := s.fold.Due(id)
		if !ok {
			delete(s.deployments, id)
			continue
		}
		facts = append(facts, fact)
	}
	return facts
}

func (s *state) sequence() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fold.Sequence()
}
