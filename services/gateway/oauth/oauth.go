// Package oauth is the OAuth 2.1 dialect of the public door: the authorize and device
// pages that people see, the endpoints that clients speak forms to, and the document
// that says where they are (RFC 8414). It holds no state: apps, grants and codes are
// identity's, and what a page must remember is in its own form.
package oauth

import (
	"errors"
	"log/slog"
	"net/http"
	"time"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
)

// Paths that are served. A client finds them by Metadata.
const (
	PathMetadata   = "/.well-known/oauth-authorization-server"
	PathAuthorize  = "/api/oauth/authorize"
	PathToken      = "/api/oauth/token"
	PathRevoke     = "/api/oauth/revoke"
	PathIntrospect = "/api/oauth/introspect"
	// PathDeviceCode is where a device asks for its codes, PathDevice where a person
	// types the one that it shows.
	PathDeviceCode = "/api/oauth/device/code"
	PathDevice     = "/api/oauth/device"
	PathSignIn     = "/api/oauth/sign-in"
	PathSignOut    = "/api/oauth/sign-out"
	pathStyle      = "/api/oauth/page.css"
)

// callTimeout bounds what one request asks of identity.
const callTimeout = 15 * time.Second

// Deps are what the handler stands on.
type Deps struct {
	Identity identityv1.OAuthServiceClient
	People   People
	// Issuer is the address that clients know the platform by, without a slash at its
	// end, like https://api.example.com. What it says decides whether cookies need TLS.
	Issuer func() string
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	Log *slog.Logger
}

// Handler serves the paths above.
type Handler struct {
	deps  Deps
	op    http.Handler
	cross *http.CrossOriginProtection
}

// New makes a handler.
func New(d Deps) (*Handler, error) {
	if d.Identity == nil || d.People == nil || d.Issuer == nil || d.Log == nil {
		return nil, errors.New("the OAuth dialect needs identity, people, an issuer and a logger")
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	h := &Handler{deps: d, cross: http.NewCrossOriginProtection()}
	h.op = h.endpoints()
	return h, nil
}

// Register adds every path to the mux. They need no authorization of the gateway's: each
// looks for its client's credentials, or its person's session, itself.
func (h *Handler) Register(handle func(pattern string, handler http.Handler)) {
	handle("GET "+PathMetadata, http.HandlerFunc(h.metadata))
	handle("POST "+PathToken, h.wire())
	handle("POST "+PathRevoke, h.wire())
	handle("POST "+PathIntrospect, h.wire())
	handle("POST "+PathDeviceCode, h.wire())

	handle("GET "+PathAuthorize, h.page(h.authorize))
	handle("POST "+PathAuthorize, h.page(h.decide))
	handle("GET "+PathDevice, h.page(h.device))
	handle("POST "+PathDevice, h.page(h.decideDevice))
	handle("POST "+PathSignIn, h.page(h.signIn))
	handle("POST "+PathSignOut, h.page(h.signOut))
	handle("GET "+pathStyle, http.HandlerFunc(h.style))
}
