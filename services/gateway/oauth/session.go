package oauth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
)

// People signs people in. Errors are *problem.Error, as people may read them.
type People interface {
	// SignIn opens a session; code is of the second factor, empty for none.
	SignIn(ctx context.Context, email, password, code string) (session string, err error)
	// Who says who a session, or a token with the scope admin, speaks for in an
	// organization; in the person's own when that is empty. 401 when it is neither.
	Who(ctx context.Context, session, org string) (*identityv1.Principal, error)
	// Account is what the person knows its own account by; empty when it has no such name.
	Account(ctx context.Context, who *identityv1.Principal) (string, error)
	// Orgs are those that the person can act for.
	Orgs(ctx context.Context, who *identityv1.Principal) ([]Org, error)
}

// Org is an organization as a person knows it.
type Org struct{ ID, Name string }

// Cookies. Only these pages read them: the API takes no cookie, so that no other site
// can have a browser call it.
const (
	cookieSession = "slipway_session"
	// cookieForm ties a sign-in form to the browser that it was shown in.
	cookieForm = "slipway_form"
)

// maxCookie bounds what is looked at, in bytes.
const maxCookie = 4096

func (h *Handler) secure() bool { return strings.HasPrefix(h.deps.Issuer(), "https://") }

// cookieName has a prefix that lets no other host of the domain set it, where there is TLS.
func (h *Handler) cookieName(name string) string {
	if h.secure() {
		return "__Host-" + name
	}
	return name
}

func (h *Handler) setCookie(w http.ResponseWriter, name, value string, site http.SameSite, age time.Duration) {
	http.SetCookie(w, &http.Cookie{
		Name: h.cookieName(name), Value: value, Path: "/", HttpOnly: true, Secure: h.secure(), SameSite: site,
		MaxAge: int(age / time.Second),
	})
}

// cookie is empty when there is none, or more than one: then somebody else set it too.
func (h *Handler) cookie(r *http.Request, name string) string {
	all := r.CookiesNamed(h.cookieName(name))
	if len(all) != 1 || len(all[0].Value) > maxCookie {
		return ""
	}
	return all[0].Value
}

// person is who is signed in.
type person struct {
	session   string
	principal *identityv1.Principal
}

// signedIn is nil when nobody is. Errors: those of People but 401.
func (h *Handler) signedIn(r *http.Request, org string) (*person, error) {
	session := h.cookie(r, cookieSession)
	if session == "" {
		return nil, nil
	}
	principal, err := h.deps.People.Who(r.Context(), session, org)
	if isStatus(err, http.StatusUnauthorized) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &person{session: session, principal: principal}, nil
}

// formKey ties forms to a browser: its session, or before there is one a cookie of its own.
func (h *Handler) formKey(w http.ResponseWriter, r *http.Request, p *person) string {
	if p != nil {
		return p.session
	}
	if key := h.cookie(r, cookieForm); key != "" {
		return key
	}
	raw := make([]byte, 32)
	// crypto/rand.Read never fails: it ends the program when the system has no randomness.
	_, _ = rand.Read(raw)
	key := base64.RawURLEncoding.EncodeToString(raw)
	h.setCookie(w, cookieForm, key, http.SameSiteStrictMode, time.Hour)
	return key
}

// formToken is what a form must bring back: it is for one purpose, one content and one
// browser, and no other site can know it.
func formToken(key string, what ...string) string {
	mac := hmac.New(sha256.New, []byte(key))
	for _, w := range what {
		// Lengths keep ("ab", "c") apart from ("a", "bc").
		mac.Write([]byte{byte(len(w) >> 24), byte(len(w) >> 16), byte(len(w) >> 8), byte(len(w))})
		mac.Write([]byte(w))
	}
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func validFormToken(token, key string, what ...string) bool {
	return key != "" && hmac.Equal([]byte(token), []byte(formToken(key, what...)))
}
