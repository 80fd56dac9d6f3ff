package gateway

import (
	"encoding/json"
	"net/http"
	"sync/atomic"
)

// healthReport answers GET /api/v1/health.
type healthReport struct {
	services func() map[string]bool
	version  string
	wasReady atomic.Bool
}

// ServeHTTP answers 200 when every service is ready and 503 otherwise, in one
// shape; status is ok, starting (has never been ready) or degraded.
func (h *healthReport) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	services := h.services()
	if services == nil {
		services = map[string]bool{}
	}
	ready := len(services) > 0
	for _, ok := range services {
		ready = ready && ok
	}
	status, code := "ok", http.StatusOK
	switch {
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
