package oauth

import (
	"net/http"
	"net/url"

	"github.com/slipway-paas/slipway/libs/problem"
)

// signInPage asks who is there.
type signInPage struct {
	// App is who asks; empty for a device.
	App         string
	Next, Token string
	Email       string
	Message     string
}

func (h *Handler) showSignIn(w http.ResponseWriter, r *http.Request, status int, page signInPage) error {
	page.Token = formToken(h.formKey(w, r, nil), PathSignIn, page.Next)
	return h.show(w, status, "signin.html", page)
}

// signIn opens a session and leads back to the page that asked for it.
func (h *Handler) signIn(w http.ResponseWriter, r *http.Request) error {
	next := r.PostForm.Get("next")
	if !ownPage(next) {
		return problem.Malformed("The form leads elsewhere; go back to the app and try again.")
	}
	if !validFormToken(r.PostForm.Get("token"), h.cookie(r, cookieForm), PathSignIn, next) {
		return problem.Forbidden("The form is not from this page, or cookies are off; allow cookies for this site and go back to the app.")
	}
	session, err := h.open(r)
	if err != nil {
		p := problem.From(err)
		if p.Status >= http.StatusInternalServerError {
			return err
		}
		return h.showSignIn(w, r, p.Status, signInPage{Next: next, Email: r.PostForm.Get("email"), Message: p.Message})
	}
	h.setCookie(w, cookieForm, "", http.SameSiteStrictMode, -1)
	// Lax, because the app's link to the authorize page must find the session.
	h.setCookie(w, cookieSession, session, http.SameSiteLaxMode, 0)
	w.Header().Set("Location", next)
	w.WriteHeader(http.StatusSeeOther)
	return nil
}

// open is a new session, or a token that is as good as one.
func (h *Handler) open(r *http.Request) (string, error) {
	if token := r.PostForm.Get("access_token"); token != "" {
		if len(token) > maxCookie {
			return "", problem.Unauthorized("The access token is not valid.")
		}
		if _, err := h.deps.People.Who(r.Context(), token, ""); err != nil {
			return "", err
		}
		return token, nil
	}
	return h.deps.People.SignIn(r.Context(), r.PostForm.Get("email"), r.PostForm.Get("password"), r.PostForm.Get("code"))
}

// signOut lets somebody else sign in here. The session itself goes on elsewhere, and ends
// by itself or with a logout.
func (h *Handler) signOut(w http.ResponseWriter, r *http.Request) error {
	next := r.PostForm.Get("next")
	session := h.cookie(r, cookieSession)
	if !ownPage(next) || !validFormToken(r.PostForm.Get("token"), session, PathSignOut, next) {
		return problem.Forbidden("The form is not from this page; go back to the app and try again.")
	}
	h.setCookie(w, cookieSession, "", http.SameSiteLaxMode, -1)
	w.Header().Set("Location", next)
	w.WriteHeader(http.StatusSeeOther)
	return nil
}

// ownPage keeps sign-in from sending people anywhere but to our own two pages.
func ownPage(next string) bool {
	u, err := url.Parse(next)
	return err == nil && u.Scheme == "" && u.Host == "" && u.User == nil && u.Fragment == "" &&
		(u.Path == PathAuthorize || u.Path == PathDevice) && u.String() == next
}
