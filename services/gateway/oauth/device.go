package oauth

import (
	"context"
	"net/http"
	"net/url"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
)

type codePage struct {
	Message string
}

// maxUserCode bounds what a person types, in bytes.
const maxUserCode = 32

// device asks for the code that a device shows, and then for consent (RFC 8628, section 3.3).
func (h *Handler) device(w http.ResponseWriter, r *http.Request) error {
	code := r.URL.Query().Get("user_code")
	if len(code) > maxUserCode {
		code = ""
	}
	next := PathDevice
	if code != "" {
		next += "?" + url.Values{"user_code": {code}}.Encode()
	}
	p, err := h.signedIn(r, "")
	if err != nil {
		return err
	}
	if p == nil {
		return h.showSignIn(w, r, http.StatusOK, signInPage{Next: next})
	}
	if code == "" {
		return h.show(w, http.StatusOK, "code.html", codePage{})
	}
	waiting, err := h.waiting(r.Context(), code)
	if isStatus(err, http.StatusNotFound) {
		return h.show(w, http.StatusNotFound, "code.html", codePage{Message: "This code is not known, was used already, or has expired. Check it, or start again on the device."})
	}
	if err != nil {
		return err
	}
	return h.showConsent(w, r, p, consentPage{
		App: waiting.GetClientName(), Action: PathDevice, Request: code, UserCode: code,
		Scopes: described(waiting.GetScopes()), Next: next,
	})
}

func (h *Handler) waiting(ctx context.Context, code string) (*identityv1.GetDeviceResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return h.deps.Identity.GetDevice(ctx, &identityv1.GetDeviceRequest{UserCode: code})
}

// decideDevice lets the device in, or not.
func (h *Handler) decideDevice(w http.ResponseWriter, r *http.Request) error {
	code := r.PostForm.Get("request")
	p, err := h.decider(r, PathDevice, code)
	if err != nil {
		return err
	}
	waiting, err := h.waiting(r.Context(), code)
	if err != nil {
		return err
	}
	allow := r.PostForm.Get("decision") == "allow"
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	defer cancel()
	_, err = h.deps.Identity.DecideDevice(ctx, &identityv1.DecideDeviceRequest{
		Principal: p.principal, UserCode: code, Approve: allow, Scopes: waiting.GetScopes(),
	})
	if err != nil {
		return err
	}
	done := problemPage{Title: "You are signed in on the device", Message: "You can close this page and go back to it."}
	if !allow {
		done = problemPage{Title: "The device was not let in", Message: "Nothing was allowed. You can close this page."}
	}
	return h.show(w, http.StatusOK, "problem.html", done)
}
