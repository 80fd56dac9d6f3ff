package balance

import (
	"fmt"
	"time"

	"github.com/slipway-paas/slipway/gen/slipway/routing/v1"
)

// Outcome is what became of one request.
type Outcome int

const (
	// Answered below 500.
	Answered Outcome = iota
	// ServerError is an answer of 500 or above.
	ServerError
	// Unreachable: no connection could be made.
	Unreachable
	// BrokenOff: the connection ended before an answer began.
	BrokenOff
	// TimedOut: no answer began in time.
	TimedOut
)

func (o Outcome) String() string {
	return [...]string{"an answer", "a server error", "no connection", "a connection that broke off", "no answer in time"}[o]
}

// record is what recent requests to one instance found.
type record struct {
	inARow int
	// times are the ejections that no success came between.
	times int
	// since, answers and errors are those of the current window.
	since           time.Time
	answers, errors int
}

// Found notes what a request to an instance of the route found, and ejects the
// instance when that is due. The last instance of a route that takes requests is
// never ejected.
func (p *Pool) Found(i *Instance, route *routingv1.Route, o Outcome) {
	if len(route.GetUpstreams()) < 2 && o == Answered {
		return
	}
	now := p.now()
	i.mu.Lock()
	reason, failures := i.record.note(o, now, p.settings)
	errors, answers := i.record.errors, i.record.answers
	i.mu.Unlock()
	if reason == "" || i.until.Load() > now.UnixNano() {
		return
	}
	if !p.anotherServes(i, route, now, o == ServerError, share(errors, answers)) {
		return
	}
	i.mu.Lock()
	i.record.times++
	until := now.Add(time.Duration(min(i.record.times, maxTimes)) * p.settings.For)
	// Back from it, the next failure ejects again at once.
	i.record.inARow = max(p.settings.InARow-1, 0)
	i.record.answers, i.record.errors = 0, 0
	i.mu.Unlock()
	i.until.Store(until.UnixNano())
	p.ejected(Ejection{Instance: i, Route: route, Reason: reason, Failures: failures, Until: until})
}

// note returns why the instance is due to be ejected, if it is.
func (r *record) note(o Outcome, now time.Time, s Settings) (reason string, failures int) {
	if now.Sub(r.since) > s.Window {
		r.since, r.answers, r.errors = now, 0, 0
	}
	switch o {
	case Answered:
		r.answers++
		r.inARow, r.times = 0, 0
		return "", 0
	case ServerError:
		r.answers++
		r.errors++
		// It was reached and it spoke.
		r.inARow = 0
		if s.Burst > 0 && r.errors >= s.Burst && 2*r.errors > r.answers {
			return fmt.Sprintf("%d of its last %d answers were server errors, other instances serve.", r.errors, r.answers), r.errors
		}
		return "", 0
	default:
		r.inARow++
		if s.InARow > 0 && r.inARow >= s.InARow {
			return fmt.Sprintf("%d requests in a row failed, the last one with %s.", r.inARow, o), r.inARow
		}
		return "", 0
	}
}

// anotherServes reports whether the route has another instance that takes
// requests. For server errors it must also fail less than half as often: what all
// instances have in common is the app's fault, or that of who asks.
func (p *Pool) anotherServes(but *Instance, route *routingv1.Route, now time.Time, outlier bool, failing float64) bool {
	for _, u := range route.GetUpstreams() {
		i := p.instance(u)
		if i == but || i.until.Load() > now.UnixNano() {
			continue
		}
		if !outlier {
			return true
		}
		i.mu.Lock()
		rate := 0.0
		if now.Sub(i.record.since) <= p.settings.Window {
			rate = share(i.record.errors, i.record.answers)
		}
		i.mu.Unlock()
		if 2*rate < failing {
			return true
		}
	}
	return false
}

func share(part, whole int) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}
