// Package pages answers for an app that cannot: a page for people, problem
// details for programs, whichever the request's Accept prefers.
package pages

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/elnormous/contenttype"

	"github.com/slipway-paas/slipway/libs/problem"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

// Page is one answer: what is said in both forms.
type Page struct {
	Status int
	// Code is stable; programs may rely on it.
	Code string
	// Title is the page's heading.
	Title string
	// Message is the sentence for people and programs; %s stands for the host.
	Message string
	// Advice says what a visitor can do.
	Advice string
	// RetryAfter is when to try again; 0 says nothing about it.
	RetryAfter time.Duration
}

// UnknownHost is for a host that no app has.
func UnknownHost() Page {
	return Page{
		Status: http.StatusNotFound, Code: "unknown_host",
		Title:   "There is no app here",
		Message: "No app answers at %s.",
		Advice:  "Check the address for a typing mistake. If the app is yours, see whether it was destroyed or its domain was removed.",
	}
}

// Starting is for an app none of whose instances was healthy yet.
func Starting() Page {
	return Page{
		Status: http.StatusServiceUnavailable, Code: "app_starting",
		Title:      "This app is starting",
		Message:    "The app at %s is starting and will answer in a moment.",
		Advice:     "Try again in a few seconds.",
		RetryAfter: 2 * time.Second,
	}
}

// Down is for an app none of whose instances is healthy now.
func Down() Page {
	return Page{
		Status: http.StatusServiceUnavailable, Code: "app_down",
		Title:      "This app is not answering",
		Message:    "The app at %s is down at the moment; it is started again by itself.",
		Advice:     "Try again in a moment. If the app is yours, its logs say what happened.",
		RetryAfter: 5 * time.Second,
	}
}

// Stopped is for an app that its operator stopped.
func Stopped() Page {
	return Page{
		Status: http.StatusServiceUnavailable, Code: "app_stopped",
		Title:      "This app is stopped",
		Message:    "The app at %s was stopped by its operator.",
		Advice:     "If the app is yours, restart it to bring it back.",
		RetryAfter: 60 * time.Second,
	}
}

// Unreachable is for an app whose instances took no connection.
func Unreachable() Page {
	return Page{
		Status: http.StatusServiceUnavailable, Code: "app_unreachable",
		Title:      "This app is not answering",
		Message:    "The app at %s did not take the connection; nothing of the request reached it.",
		Advice:     "It is safe to try again in a moment.",
		RetryAfter: time.Second,
	}
}

// BadAnswer is for an app that took the request and gave no usable answer.
func BadAnswer() Page {
	return Page{
		Status: http.StatusBadGateway, Code: "app_bad_answer",
		Title:   "This app broke off",
		Message: "The app at %s took the request and closed the connection without a valid answer.",
		Advice:  "The request may have had its effect. If the app is yours, its logs say more.",
	}
}

// TimedOut is for an app that took the request and did not answer in time.
func TimedOut() Page {
	return Page{
		Status: http.StatusGatewayTimeout, Code: "app_timeout",
		Title:   "This app took too long",
		Message: "The app at %s took the request and did not answer in time.",
		Advice:  "The request may have had its effect. If the app is yours, its logs say more.",
	}
}

// Maintenance is for an app that its owner took off the air for a while.
func Maintenance() Page {
	return Page{
		Status: http.StatusServiceUnavailable, Code: "app_maintenance",
		Title:      "This app is under maintenance",
		Message:    "The app at %s is being worked on and will be back soon.",
		Advice:     "Try again in a few minutes.",
		RetryAfter: 60 * time.Second,
	}
}

// TooLarge is for a request with a larger body than the app takes.
func TooLarge() Page {
	return Page{
		Status: http.StatusRequestEntityTooLarge, Code: "request_too_large",
		Title:   "This request is too large",
		Message: "The body of the request is larger than the app at %s takes.",
		Advice:  "Send less at once. If the app is yours, you can raise its limit.",
	}
}

// EdgeStarting is for an edge that has not seen a route table yet.
func EdgeStarting() Page {
	return Page{
		Status: http.StatusServiceUnavailable, Code: "edge_starting",
		Title:      "One moment",
		Message:    "This server is starting and does not know yet what is at %s.",
		Advice:     "Try again in a few seconds.",
		RetryAfter: 2 * time.Second,
	}
}

// Failed is for anything that went wrong in the edge itself.
func Failed(status int) Page {
	return Page{
		Status: status, Code: problem.CodeInternal,
		Title:   "Something went wrong",
		Message: "The request to %s could not be served.",
		Advice:  "Try again. The request id in the answer's headers helps to find out why.",
	}
}

// Writer renders pages.
type Writer struct {
	page  *template.Template
	style template.CSS
	csp   string
	html  contenttype.MediaType
	json  contenttype.MediaType
	plain contenttype.MediaType
}

// NewWriter returns an error only when the page's template is broken.
func NewWriter() (*Writer, error) {
	t, err := template.New("page").Parse(pageHTML)
	if err != nil {
		return nil, fmt.Errorf("parsing the error page: %w", err)
	}
	sum := sha256.Sum256([]byte(pageCSS))
	return &Writer{
		page: t, style: template.CSS(pageCSS),
		csp: "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'sha256-" +
			base64.StdEncoding.EncodeToString(sum[:]) + "'",
		html:  contenttype.NewMediaType("text/html"),
		json:  contenttype.NewMediaType("application/problem+json"),
		plain: contenttype.NewMediaType("application/json"),
	}, nil
}

// Write answers the request with the page. host is shown as it is, escaped.
func (w *Writer) Write(rw http.ResponseWriter, r *http.Request, host string, p Page) error {
	h := rw.Header()
	h.Set("Vary", "Accept")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Robots-Tag", "noindex")
	message := fmt.Sprintf(p.Message, host)
	if w.prefersJSON(r) {
		(&problem.Error{Status: p.Status, Code: p.Code, Message: message, RetryAfter: p.RetryAfter}).Write(rw)
		return nil
	}
	var body bytes.Buffer
	err := w.page.Execute(&body, view{
		Style: w.style, Status: p.Status, Title: p.Title, Message: message, Advice: p.Advice, Code: p.Code,
	})
	if err != nil {
		return fmt.Errorf("rendering the page %s: %w", p.Code, err)
	}
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(p.RetryAfter/time.Second)))
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", w.csp)
	h.Set("Referrer-Policy", "no-referrer")
	rw.WriteHeader(p.Status)
	if r.Method != http.MethodHead {
		// The status line is out: a failed write means the client is gone.
		_, _ = rw.Write(body.Bytes())
	}
	return nil
}

type view struct {
	Style                        template.CSS
	Status                       int
	Title, Message, Advice, Code string
}

// prefersJSON ranks HTML first: a browser asks for it by name, and a program that
// cares asks for JSON by name.
func (w *Writer) prefersJSON(r *http.Request) bool {
	accept := strings.Join(r.Header.Values("Accept"), ", ")
	if strings.TrimSpace(accept) == "" {
		return false
	}
	best, _, err := contenttype.GetAcceptableMediaTypeFromHeader(accept, []contenttype.MediaType{w.html, w.json, w.plain})
	if err != nil {
		return false
	}
	return !best.EqualsMIME(w.html)
}
