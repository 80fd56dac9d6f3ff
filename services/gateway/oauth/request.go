package oauth

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/access"
	"github.com/slipway-paas/slipway/libs/problem"
)

// maxState bounds what a client may have sent back to it, in bytes.
const maxState = 2048

// authorization is what a client asks a person for, checked.
type authorization struct {
	// raw is the query it came as; the page's form brings it back, to be checked again.
	raw       string
	app       *identityv1.OAuthApp
	redirect  string
	state     string
	scopes    []string
	challenge string
}

// refusedRequest is a request that cannot be granted and may be told to the client: its
// redirect is known to be its own.
type refusedRequest struct {
	redirect, state string
	code, message   string
}

func (r *refusedRequest) Error() string { return r.message }

// readAuthorization checks an authorization request (RFC 6749, section 4.1.1; RFC 7636).
// Errors: *problem.Error to be shown to the person, *refusedRequest to be told to the
// client. Nothing is sent to an address that the client has not registered.
func (h *Handler) readAuthorization(ctx context.Context, raw string) (*authorization, error) {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return nil, problem.Malformed("The link that brought you here is broken; go back to the app and try again.")
	}
	for _, values := range query {
		if len(values) > 1 {
			return nil, problem.Malformed("The link that brought you here says something twice; go back to the app and try again.")
		}
	}
	app, err := h.app(ctx, query.Get("client_id"))
	if err != nil {
		return nil, err
	}
	a := &authorization{raw: raw, app: app, redirect: query.Get("redirect_uri"), state: query.Get("state"), challenge: query.Get("code_challenge")}
	switch {
	case a.redirect == "" || !slices.Contains(app.GetRedirectUris(), a.redirect):
		return nil, problem.Malformed("The app wants you sent to an address that it has not registered. This may be an attempt to steal access, so it ends here; tell whoever runs the app.")
	case len(a.state) > maxState:
		return nil, problem.Malformed("The link that brought you here is too long; go back to the app and try again.")
	}
	refuse := func(code, message string) error {
		return &refusedRequest{redirect: a.redirect, state: a.state, code: code, message: message}
	}
	a.scopes = strings.Fields(query.Get("scope"))
	switch method := query.Get("code_challenge_method"); {
	case query.Has("request") || query.Has("request_uri"):
		return nil, refuse("request_not_supported", "request objects are not supported")
	case query.Get("response_type") != "code":
		return nil, refuse("unsupported_response_type", "response_type must be code")
	case query.Get("response_mode") != "" && query.Get("response_mode") != "query":
		return nil, refuse("invalid_request", "response_mode must be query")
	case a.challenge == "":
		return nil, refuse("invalid_request", "code_challenge missing: PKCE is needed from every client")
	case method != "S256":
		return nil, refuse("invalid_request", "code_challenge_method must be S256")
	case !wellFormedChallenge(a.challenge):
		return nil, refuse("invalid_request", "code_challenge must be the base64url of a SHA-256, without padding")
	case len(a.scopes) == 0:
		return nil, refuse("invalid_scope", "scope missing: name at least one of those that the app has registered")
	}
	for _, s := range a.scopes {
		if !access.Holds(app.GetScopes(), s) {
			return nil, refuse("invalid_scope", "the app asks for a scope that it has not registered")
		}
	}
	if query.Get("prompt") == "none" {
		return nil, refuse("interaction_required", "a person must consent")
	}
	return a, nil
}

func (h *Handler) app(ctx context.Context, clientID string) (*identityv1.OAuthApp, error) {
	unknown := problem.Malformed("The app that sent you here is not known to Slipway. Check the link, or tell whoever runs the app.")
	if clientID == "" || len(clientID) > 128 {
		return nil, unknown
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := h.deps.Identity.GetApp(ctx, &identityv1.GetAppRequest{ClientId: clientID})
	if err != nil {
		if problem.From(err).Status == http.StatusNotFound {
			return nil, unknown
		}
		return nil, err
	}
	return res.GetApp(), nil
}

func wellFormedChallenge(challenge string) bool {
	hash, err := base64.RawURLEncoding.Strict().DecodeString(challenge)
	return err == nil && len(hash) == 32
}

// sendBack sends the person to the client with the answer, and with who gives it
// (RFC 9207), so that a client of several platforms does not mix them up.
func (h *Handler) sendBack(w http.ResponseWriter, redirect, state string, answer url.Values) {
	to, err := url.Parse(redirect)
	if err != nil {
		// It was registered, and then it parsed.
		problem.Malformed("The app's address cannot be used.").Write(w)
		return
	}
	query := to.Query()
	for name := range answer {
		query.Set(name, answer.Get(name))
	}
	if state != "" {
		query.Set("state", state)
	}
	query.Set("iss", h.deps.Issuer())
	to.RawQuery = query.Encode()
	w.Header().Set("Location", to.String())
	w.WriteHeader(http.StatusSeeOther)
}
