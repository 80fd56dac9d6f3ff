package gateway

import (
	"encoding/json"
	"maps"
	"net/http"
	"sync/atomic"
)

// healthReport answers GET /api/v1/health.
type healthReport struct {
	services func() map[string]bool
	// edges is how many edges are heard and how many fell silent; nil when nobody listens.
	edges    func() (living, silent int)
	version  string
	wasReady atomic.Bool
}

// ServeHTTP answers 200 when every service is ready and 503 otherwise, in one
// shape; status is ok, starting (has never been ready) or degraded. An edge that is
// missed while another one is heard makes it degraded with 200: apps are served, and
// so is this API.
func (h *healthReport) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	services := maps.Clone(h.services())
	if services == nil {
		services = map[string]bool{}
	}
	edgeServes := h.lookAtEdges(services)
	ready, missed := len(services) > 0, false
	for name, ok := range services {
		if name == edgeName && !ok && edgeServes {
			missed = true
			continue
		}
		ready = ready && ok
	}
	status, code := "ok", http.StatusOK
	switch {
	case ready && missed:
		h.wasReady.Store(true)
		status = "degraded"
	case ready:
		h.wasReady.Store(true)
	case h.wasReady.Load():
		status, code = "degraded", http.StatusServiceUnavailable
	default:
		status, code = "starting", http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	if code != http.StatusOK {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(code)
	// The status line is out: a failed write means that the client is gone.
	_ = json.NewEncoder(w).Encode(struct {
		Status   string          `json:"status"`
		Version  string          `json:"version"`
		Services map[string]bool `json:"services"`
	}{status, h.version, services})
}

const edgeName = "edge"

// lookAtEdges says of edges what they say themselves, over what a look at one of them
// found, and reports whether one is heard.
func (h *healthReport) lookAtEdges(services map[string]bool) bool {
	if h.edges == nil {
		return false
	}
	living, silent := h.edges()
	if silent > 0 {
		services[edgeName] = false
	}
	return living > 0
}
