package oauth

import (
	"bytes"
	"embed"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/slipway-paas/slipway/libs/problem"
)

//go:embed pages
var files embed.FS

// templates are parsed once: they are part of the program.
var templates = template.Must(template.ParseFS(files, "pages/*.html"))

// maxPost bounds what a page's form brings, in bytes.
const maxPost = 32 << 10

func (h *Handler) style(w http.ResponseWriter, _ *http.Request) {
	css, err := files.ReadFile("pages/page.css")
	if err != nil {
		problem.NotFound("There is no such page.").Write(w)
		return
	}
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("Cache-Control", "public, max-age=3600")
	// A failed write means that the client is gone.
	_, _ = w.Write(css)
}

// page serves people: what goes wrong they read, and forms come from our own pages only.
func (h *Handler) page(serve func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", policy(""))
		header.Set("X-Frame-Options", "DENY")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cross-Origin-Opener-Policy", "same-origin")
		err := h.cross.Check(r)
		if err != nil {
			err = problem.Forbidden("Another site has sent this form, so that nothing was done. If you wanted it, go back to the app and try again.")
		}
		if err == nil && r.Method == http.MethodPost {
			err = readPost(w, r)
		}
		if err == nil {
			err = serve(w, r)
		}
		var refused *refusedRequest
		switch {
		case err == nil:
		case errors.As(err, &refused):
			h.sendBack(w, refused.redirect, refused.state, url.Values{"error": {refused.code}, "error_description": {refused.message}})
		default:
			h.showProblem(w, r, err)
		}
	})
}

func readPost(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxPost)
	var tooLarge *http.MaxBytesError
	switch err := r.ParseForm(); {
	case errors.As(err, &tooLarge):
		return problem.TooLarge("The form is too large; go back to the app and try again.")
	case err != nil:
		return problem.Malformed("The form cannot be read; go back and send it again.")
	}
	return nil
}

// policy is the pages' Content-Security-Policy. Browsers hold form-action against where
// a form's answer redirects to, so that the client's address must be in it.
func policy(redirect string) string {
	allowed := "'self'"
	if u, err := url.Parse(redirect); err == nil && u.Scheme != "" {
		target := u.Scheme + ":"
		if u.Scheme == "https" || u.Scheme == "http" {
			target = u.Scheme + "://" + u.Host
		}
		// What is more than a plain name would be read as another directive.
		if !strings.ContainsFunc(target, func(r rune) bool {
			return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-+:/[]", r)
		}) {
			allowed += " " + target
		}
	}
	return "default-src 'none'; style-src 'self'; form-action " + allowed + "; base-uri 'none'; frame-ancestors 'none'"
}

func (h *Handler) show(w http.ResponseWriter, status int, name string, data any) error {
	var out bytes.Buffer
	if err := templates.ExecuteTemplate(&out, name, data); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	// A failed write means that the client is gone.
	_, _ = w.Write(out.Bytes())
	return nil
}

type problemPage struct{ Title, Message string }

func (h *Handler) showProblem(w http.ResponseWriter, r *http.Request, err error) {
	p := problem.From(err)
	if p.Status >= http.StatusInternalServerError {
		h.deps.Log.ErrorContext(r.Context(), "could not show a page", "path", r.URL.Path, "error", err)
	}
	title := map[int]string{
		http.StatusForbidden: "Not allowed", http.StatusNotFound: "Not found", http.StatusServiceUnavailable: "Not available at the moment",
		http.StatusInternalServerError: "Something went wrong",
	}[p.Status]
	if title == "" {
		title = "This cannot be done"
	}
	if err := h.show(w, p.Status, "problem.html", problemPage{Title: title, Message: p.Message}); err != nil {
		p.Write(w)
	}
}

func isStatus(err error, status int) bool {
	return err != nil && problem.From(err).Status == status
}

// scopeLine is one scope on a page.
type scopeLine struct{ Name, Says string }

func described(asked []string) []scopeLine {
	var lines []scopeLine
	for _, s := range scopes {
		if slices.Contains(asked, s.name) {
			lines = append(lines, scopeLine{s.name, s.says})
		}
	}
	return lines
}
