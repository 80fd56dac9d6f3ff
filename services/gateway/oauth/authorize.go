package oauth

import (
	"context"
	"net/http"
	"net/url"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/problem"
)

// consentPage is what a person decides on.
type consentPage struct {
	App string
	// Account is who consents.
	Account string
	// Action is where the form goes, Request what it brings back.
	Action, Request, Token string
	// Goes is the host, or the app's own scheme, that the person is sent to; empty for
	// a device.
	Goes string
	// UserCode is what the device shows; empty for an app.
	UserCode string
	Scopes   []scopeLine
	Orgs     []Org
	// Org is the one that is chosen at first.
	Org string
	// SignOut is the token of the form that signs out, Next where that leads.
	SignOut, Next string
}

// authorize shows the consent page, or first the sign-in page.
func (h *Handler) authorize(w http.ResponseWriter, r *http.Request) error {
	asked, err := h.readAuthorization(r.Context(), r.URL.RawQuery)
	if err != nil {
		return err
	}
	next := PathAuthorize + "?" + r.URL.RawQuery
	p, err := h.signedIn(r, "")
	if err != nil {
		return err
	}
	if p == nil {
		return h.showSignIn(w, r, http.StatusOK, signInPage{App: asked.app.GetName(), Next: next})
	}
	w.Header().Set("Content-Security-Policy", policy(asked.redirect))
	return h.showConsent(w, r, p, consentPage{
		App: asked.app.GetName(), Action: PathAuthorize, Request: asked.raw, Goes: destination(asked.redirect),
		Scopes: described(asked.scopes), Next: next,
	})
}

func (h *Handler) showConsent(w http.ResponseWriter, r *http.Request, p *person, page consentPage) error {
	orgs, err := h.deps.People.Orgs(r.Context(), p.principal)
	if err != nil {
		return err
	}
	if page.Account, err = h.deps.People.Account(r.Context(), p.principal); err != nil {
		return err
	}
	page.Orgs, page.Org = orgs, p.principal.GetOrgId()
	page.Token = formToken(p.session, page.Action, page.Request)
	page.SignOut = formToken(p.session, PathSignOut, page.Next)
	return h.show(w, http.StatusOK, "consent.html", page)
}

// decide takes the person's decision back to the app.
func (h *Handler) decide(w http.ResponseWriter, r *http.Request) error {
	raw := r.PostForm.Get("request")
	p, err := h.decider(r, PathAuthorize, raw)
	if err != nil {
		return err
	}
	asked, err := h.readAuthorization(r.Context(), raw)
	if err != nil {
		return err
	}
	if r.PostForm.Get("decision") != "allow" {
		return &refusedRequest{redirect: asked.redirect, state: asked.state, code: "access_denied", message: "the person has refused"}
	}
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	defer cancel()
	res, err := h.deps.Identity.Approve(ctx, &identityv1.ApproveRequest{
		Principal: p.principal, ClientId: asked.app.GetClientId(), RedirectUri: asked.redirect,
		Scopes: asked.scopes, CodeChallenge: asked.challenge,
	})
	if err != nil {
		return err
	}
	h.sendBack(w, asked.redirect, asked.state, url.Values{"code": {res.GetCode()}})
	return nil
}

// decider is who sent a consent form, for the org that was chosen in it. The form must be
// the very one that was shown in this session.
func (h *Handler) decider(r *http.Request, action, request string) (*person, error) {
	p, err := h.signedIn(r, r.PostForm.Get("org"))
	if err != nil {
		return nil, err
	}
	if p == nil {
		return nil, problem.Unauthorized("You are signed out by now; go back to the app and try again.")
	}
	if !validFormToken(r.PostForm.Get("token"), p.session, action, request) {
		return nil, problem.Forbidden("The form is not from this page, or from before you signed in, so that nothing was done. Go back to the app and try again.")
	}
	return p, nil
}

// destination is what a person is told of where they will be sent.
func destination(redirect string) string {
	u, err := url.Parse(redirect)
	switch {
	case err != nil:
		return redirect
	case u.Host != "":
		return u.Host
	}
	return u.Scheme + ": (an app on this device)"
}
