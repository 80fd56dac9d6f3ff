package health

import (
	"fmt"
	"time"

	healthv1 "github.com/slipway-paas/slipway/gen/slipway/health/v1"
)

const (
	firstDelay     = 5 * time.Millisecond
	maxDelay       = 250 * time.Millisecond
	delayGrowth    = 1.3
	defaultFailing = 3
	// startingReportEvery limits what is published of an instance that is not
	// healthy yet: it is probed many times a second.
	startingReportEvery = time.Second
	// doubtEvery limits the probes that edges can ask for: each passes the instance
	// over on its own.
	doubtEvery = time.Second
)

// outcome is what one probe saw.
type outcome struct {
	ok     bool
	reason string
	at     time.Time
	took   time.Duration
}

// change is what the log does not say yet.
type change struct {
	healthy bool
	id      string
	reason  string
	at      time.Time
}

// tracker decides, for one attempt of one instance, what a probe's outcome means.
// It does no I/O and reads no clock.
type tracker struct {
	target *healthv1.Target
	// healthy is what the log says, base the sequence of the event that made it so.
	healthy bool
	base    uint64
	// starting lasts until the first healthy probe of the attempt.
	starting bool
	failures uint32
	// since is when the first probe was that the next change follows from.
	since time.Time
	delay time.Duration
	// doubted is when an edge was last believed to have a reason.
	doubted time.Time

	reported       bool
	reportedAt     time.Time
	reportedOK     bool
	reportedReason string
}

func newTracker(target *healthv1.Target) *tracker {
	return &tracker{
		target:   target,
		healthy:  target.GetHealthy(),
		base:     target.GetSequence(),
		starting: !target.GetHealthy(),
	}
}

// sameAttempt reports whether the value is about the same start of the same
// container, probed in the same way, so that what was learnt still holds.
func (t *tracker) sameAttempt(next *healthv1.Target) bool {
	was := t.target
	return was.GetContainerId() == next.GetContainerId() &&
		was.GetAttempt() == next.GetAttempt() &&
		was.GetAddress() == next.GetAddress() &&
		was.GetHost() == next.GetHost() &&
		was.GetHealthCheck().GetPath() == next.GetHealthCheck().GetPath()
}

// adopt takes over a newer value of the view. One that is older than what was
// recorded from here is not news: the view is still catching up.
func (t *tracker) adopt(next *healthv1.Target) {
	t.target = next
	if next.GetSequence() < t.base {
		return
	}
	t.base = next.GetSequence()
	t.healthy = next.GetHealthy()
	if t.healthy {
		t.starting = false
	}
}

// observe takes one outcome and returns the change that the log must be told, if
// any. Until recorded is called the same change is due again, under the same id.
func (t *tracker) observe(o outcome) (change, bool) {
	if t.since.IsZero() || t.healthy && t.failures == 0 {
		t.since = o.at.Add(-o.took)
	}
	if o.ok {
		t.failures = 0
		if t.healthy {
			return change{}, false
		}
		return t.change(true, o), true
	}
	t.failures++
	if !t.healthy || t.failures < t.unhealthyAfter() {
		return change{}, false
	}
	return t.change(false, o), true
}

// doubt takes an edge's word that requests to the instance fail, and reports whether
// to probe at once. The edge saw as many failures as are asked for, so that one probe
// that agrees is enough; one that does not clears the instance.
func (t *tracker) doubt(now time.Time) bool {
	if !t.healthy || now.Sub(t.doubted) < doubtEvery {
		return false
	}
	t.doubted = now
	t.failures = max(t.failures, t.unhealthyAfter()-1)
	return true
}

// change names a change by the event it follows, so that two probers, or one that
// was restarted before the view caught up, write the same fact once, while going
// to and fro writes each.
func (t *tracker) change(healthy bool, o outcome) change {
	word := "unhealthy"
	if healthy {
		word = "healthy"
	}
	id := fmt.Sprintf("health/%s/%s/%d/%s-after-%d",
		t.target.GetInstanceId(), t.target.GetContainerId(), t.target.GetAttempt(), word, t.base)
	return change{healthy: healthy, id: id, reason: o.reason, at: o.at}
}

// recorded says that the log holds the change at that sequence.
func (t *tracker) recorded(c change, sequence uint64) {
	t.healthy = c.healthy
	t.base = max(t.base, sequence)
	t.starting = false
	t.since = time.Time{}
}

// report says whether an outcome is worth publishing.
func (t *tracker) report(o outcome) bool {
	worth := !t.reported || !t.starting || o.ok || o.ok != t.reportedOK || o.reason != t.reportedReason ||
		o.at.Sub(t.reportedAt) >= startingReportEvery
	if worth {
		t.reported, t.reportedAt, t.reportedOK, t.reportedReason = true, o.at, o.ok, o.reason
	}
	return worth
}

// next is how long to wait before the next probe. jitter is from 0 to 1.
func (t *tracker) next(interval time.Duration, jitter float64) time.Duration {
	if t.starting {
		switch {
		case t.delay == 0:
			t.delay = firstDelay
		default:
			t.delay = min(time.Duration(float64(t.delay)*delayGrowth), maxDelay)
		}
		return t.delay
	}
	return time.Duration(float64(interval) * (0.9 + 0.2*jitter))
}

// first is how long to wait before the first probe: none for one that starts; an
// instance that the log calls healthy can wait a little, so that a restarted
// prober does not ask all at once.
func (t *tracker) first(interval time.Duration, jitter float64) time.Duration {
	if t.starting {
		return 0
	}
	return time.Duration(float64(min(interval, time.Second)) * jitter)
}

func (t *tracker) unhealthyAfter() uint32 {
	if n := t.target.GetHealthCheck().GetUnhealthyAfter(); n > 0 {
		return n
	}
	return defaultFailing
}
