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
	// hosts may need another route, deployments another fact.
	hosts, deployments map[string]struct{}
}

func newState() *state {
	return &state{fold: routing.New(), hosts: map[string]struct{}{}, deployments: map[string]struct{}{}}
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
			s.hosts[h] = struct{}{}
		}
	}
}

// touch makes a host be looked at (again).
func (s *state) touch(host string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hosts[host] = struct{}{}
}

// touchAll makes every host be looked at again.
func (s *state) touchAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, host := range s.fold.Hosts() {
		s.hosts[host] = struct{}{}
	}
}

// takeHosts returns the hosts to look at, and forgets them.
func (s *state) takeHosts() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	hosts := slices.Sorted(maps.Keys(s.hosts))
	clear(s.hosts)
	return hosts
}

// wanted returns the route that the host must have, and in which trace.
func (s *state) wanted(host string) (route *routingv1.Route, traceParent string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fold.Wanted(host), s.fold.TraceParent(host)
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
