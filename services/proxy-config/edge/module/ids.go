package module

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/google/uuid"
)

const (
	headerRequestID   = "X-Request-Id"
	headerTraceParent = "Traceparent"
	maxRequestID      = 128
)

// IDs keeps a client's X-Request-Id and traceparent, and makes those that are
// missing, so that an app's log line can be tied to the request that caused it.
type IDs struct {
	// TraceParent makes a missing traceparent, not sampled. Off when the tracing
	// handler is on, which makes its own.
	TraceParent bool `json:"traceparent,omitempty"`
}

// CaddyModule implements caddy.Module.
func (*IDs) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers." + HandlerIDs, New: func() caddy.Module { return new(IDs) }}
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *IDs) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	id := r.Header.Get(headerRequestID)
	if !validRequestID(id) {
		v7, err := uuid.NewV7()
		if err != nil {
			return caddyhttp.Error(http.StatusInternalServerError, err)
		}
		id = v7.String()
		r.Header.Set(headerRequestID, id)
	}
	if h.TraceParent && r.Header.Get(headerTraceParent) == "" {
		r.Header.Set(headerTraceParent, newTraceParent())
	}
	return next.ServeHTTP(w, r)
}

func validRequestID(id string) bool {
	if id == "" || len(id) > maxRequestID {
		return false
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return false
		}
	}
	return true
}

// newTraceParent is W3C trace context version 00, flags 00: nobody sampled it yet.
func newTraceParent() string {
	var id [24]byte
	// Read never fails: it would end the process.
	_, _ = rand.Read(id[:])
	return "00-" + hex.EncodeToString(id[:16]) + "-" + hex.EncodeToString(id[16:]) + "-00"
}

var _ caddyhttp.MiddlewareHandler = (*IDs)(nil)
