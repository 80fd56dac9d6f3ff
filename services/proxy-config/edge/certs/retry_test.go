package certs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/slipway-paas/slipway/services/proxy-config/edge/certstore"
)

func TestANameRestsLongerWithEachFailure(t *testing.T) {
	t.Parallel()
	for failures, want := range map[int]time.Duration{1: time.Minute, 2: 2 * time.Minute, 5: 16 * time.Minute, 9: 256 * time.Minute, 10: longestPause, 1 << 20: longestPause} {
		if got := pause(time.Minute, failures); got != want {
			t.Errorf("after %d failures %s, want %s", failures, got, want)
		}
	}
}

func TestACAThatIsDownIsLeftAloneForLongerEachTime(t *testing.T) {
	t.Parallel()
	g, now := newGate(15*time.Second), time.Unix(1_000_000, 0)
	down := &failure{err: errors.New("no"), down: true}
	for _, want := range []time.Duration{15 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 5 * time.Minute, 5 * time.Minute} {
		if err := g.check(now); err != nil {
			t.Fatalf("nobody may ask: %v", err)
		}
		g.failed(now, down)
		// Whoever asked at the same time fails as well, which means nothing more.
		g.failed(now, down)
		var f *failure
		if err := g.check(now.Add(want - 1)); !errors.As(err, &f) || !f.retryAt.Equal(now.Add(want)) {
			t.Fatalf("the gate is not closed for %s: %v", want, err)
		}
		now = now.Add(want)
	}
	g.failed(now, down)
	g.passed()
	if err := g.check(now); err != nil {
		t.Errorf("it answers again, and is not asked: %v", err)
	}
}

func TestTheCAsWordIsTakenForTheNameAndALittleForAll(t *testing.T) {
	t.Parallel()
	g, now := newGate(15*time.Second), time.Unix(1_000_000, 0)
	limited := judge(acme.Problem{Type: acme.ProblemTypeRateLimited, Status: 429, Detail: "too many"}, now.Add(time.Hour))
	g.failed(now, limited)
	if !limited.retryAt.Equal(now.Add(time.Hour)) {
		t.Errorf("the name is tried again at %s", limited.retryAt)
	}
	if g.check(now.Add(longestGate-1)) == nil || g.check(now.Add(longestGate)) != nil {
		t.Error("the others do not wait for as long as is bearable")
	}
}

func TestFailuresAreSaidForPeople(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_000_000, 0)
	for sentence, c := range map[string]struct {
		err    error
		asked  time.Time
		shared bool
		wait   bool
	}{
		"the CA refused: bad name; no A record": {
			err: fmt.Errorf("order: %w", acme.Problem{Status: 403, Detail: "bad name", Subproblems: []acme.Subproblem{{Problem: acme.Problem{Detail: "no A record"}}}}), asked: at,
		},
		"the CA limits how much is asked of it: too many": {err: acme.Problem{Status: 429, Detail: "too many"}, asked: at, wait: true},
		"the CA has a fault: oops":                        {err: acme.Problem{Status: 500, Detail: "oops"}, asked: at, shared: true, wait: true},
		"the CA cannot be reached: connection refused": {
			err: fmt.Errorf("a: %w", &url.Error{Op: "Get", Err: &net.OpError{Op: "dial", Err: errors.New("connection refused")}}), shared: true,
		},
		"the CA cannot be reached: context deadline exceeded": {err: context.DeadlineExceeded, shared: true},
		certstore.ErrAway.Error():                             {err: fmt.Errorf("lock: %w", certstore.ErrAway), shared: true},
		errNoRecord.Error() + ": the zone is not ours":        {err: fmt.Errorf("%w: the zone is not ours", errNoRecord)},
		"no A record at all":                                  {err: errors.New("no A record at all")},
	} {
		got := explain(fmt.Errorf("%w", judge(c.err, c.asked)))
		if !strings.HasSuffix(got.sentence, sentence) || got.shared != c.shared || !got.retryAt.IsZero() != c.wait {
			t.Errorf("%v became %+v, want %q", c.err, got, sentence)
		}
	}
	if long := explain(errors.New(strings.Repeat("ä", 10_000))); len(long.sentence) > 600 {
		t.Errorf("a sentence of %d bytes", len(long.sentence))
	}
}

func TestRetryAfterIsReadAsSecondsOrADate(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	for said, want := range map[string]time.Time{
		"120":                           now.Add(2 * time.Minute),
		"Mon, 12 Jan 1970 13:46:41 GMT": time.Unix(1_000_001, 0),
		"":                              {}, "-1": {}, "soon": {}, "999999999999": {},
	} {
		if got := retryAt(said, now); !got.Equal(want) {
			t.Errorf("%q: %s, want %s", said, got, want)
		}
	}
}
