package certs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/slipway-paas/slipway/services/proxy-config/edge/certstore"
)

const (
	// longestPause is between two attempts for one name.
	longestPause = 6 * time.Hour
	// longestGate is how long the CA is left alone at a time when it is down: one attempt
	// then shows whether it is back.
	longestGate = 5 * time.Minute
	// longestWord is how far a CA's Retry-After is believed.
	longestWord = 7 * 24 * time.Hour
)

// pause is how long a name rests after so many failures in a row.
func pause(first time.Duration, failures int) time.Duration {
	p := first
	for range failures - 1 {
		if p *= 2; p >= longestPause {
			return longestPause
		}
	}
	return p
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// failure is why a CA gave no certificate.
type failure struct {
	err error
	// down: the CA answers nobody just now, whatever the name.
	down bool
	// retryAt is what the CA said, or when it is asked again; zero when nothing was said.
	retryAt time.Time
	// sentence is for people, where it was made before.
	sentence string
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// judge says what an error of the CA means; asked is the latest time that it asked to wait
// until while it answered.
func judge(err error, asked time.Time) *failure {
	f := &failure{err: err}
	var problem acme.Problem
	switch {
	case errors.As(err, &problem):
		limited := problem.Status == http.StatusTooManyRequests || problem.Type == acme.ProblemTypeRateLimited
		f.down = limited || problem.Status >= 500
		if f.down {
			f.retryAt = asked
		}
	case errors.Is(err, certstore.ErrAway), errors.Is(err, certstore.ErrOtherKey), errors.Is(err, errNoRecord):
		// Nothing that the CA could help.
	default:
		f.down = unreachable(err)
		f.retryAt = asked
	}
	return f
}

// unreachable reports whether the CA did not answer, or as a proxy does for one that is
// away.
func unreachable(err error) bool {
	var network net.Error
	if errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	text := err.Error()
	return strings.Contains(text, "HTTP 5") || strings.Contains(text, "HTTP 429")
}

// gate keeps all names from asking a CA that is down or asked for quiet.
type gate struct {
	first time.Duration

	mu    sync.Mutex
	pause time.Duration
	until time.Time
	why   error
}

func newGate(first time.Duration) *gate { return &gate{first: first} }

// check returns nil when the CA may be asked.
func (g *gate) check(now time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Before(g.until) {
		return &failure{err: g.why, down: true, retryAt: g.until}
	}
	return nil
}

// failed closes the gate, longer each time. Attempts that were under way when it closed
// count as one.
func (g *gate) failed(now time.Time, f *failure) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Before(g.until) {
		return
	}
	g.pause = min(max(2*g.pause, g.first), longestGate)
	g.until, g.why = now.Add(g.pause), f.err
	// A limit may be the name's own or the account's, which the CA does not say in a way
	// that programs read: all wait a little of it, this name all of it.
	if f.retryAt.After(g.until) {
		g.until = earlier(f.retryAt, now.Add(longestGate))
	}
	if !f.retryAt.After(g.until) {
		f.retryAt = g.until
	}
}

func (g *gate) passed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pause, g.until, g.why = 0, time.Time{}, nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// explained is a failure in words, and what follows from it.
type explained struct {
	sentence string
	retryAt  time.Time
	// shared: it says nothing of the name.
	shared bool
}

func explain(err error) explained {
	var f *failure
	var problem acme.Problem
	errors.As(err, &f)
	isProblem := errors.As(err, &problem)
	e := explained{}
	if f != nil {
		e.retryAt = f.retryAt
	}
	switch {
	case f != nil && f.sentence != "":
		e.sentence = f.sentence
	case errors.Is(err, certstore.ErrAway):
		e.sentence, e.shared = certstore.ErrAway.Error(), true
	case errors.Is(err, certstore.ErrOtherKey):
		e.sentence, e.shared = certstore.ErrOtherKey.Error(), true
	case isProblem && f != nil && f.down && problem.Status < 500:
		e.sentence = "the CA limits how much is asked of it: " + detail(problem)
	case isProblem && f != nil && f.down:
		e.sentence, e.shared = "the CA has a fault: "+detail(problem), true
	case isProblem:
		e.sentence = "the CA refused: " + detail(problem)
	case f != nil && f.down:
		e.sentence, e.shared = "the CA cannot be reached: "+innermost(f.err), true
	default:
		e.sentence = err.Error()
	}
	const longest = 500
	if len(e.sentence) > longest {
		e.sentence = strings.ToValidUTF8(e.sentence[:longest], "") + " …"
	}
	return e
}

func detail(p acme.Problem) string {
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	if text == "" {
		text = fmt.Sprintf("%s, status %d", p.Type, p.Status)
	}
	for _, sub := range p.Subproblems {
		if sub.Detail != "" && !strings.Contains(text, sub.Detail) {
			text += "; " + sub.Detail
		}
	}
	return text
}

func innermost(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		err = next
	}
}
