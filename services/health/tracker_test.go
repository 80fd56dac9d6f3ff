package health

import (
	"testing"
	"time"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	healthv1 "github.com/slipway-paas/slipway/gen/slipway/health/v1"
)

func target() *healthv1.Target {
	return &healthv1.Target{
		OrgId: "acme", DeploymentId: "d1", ReleaseId: "r1", InstanceId: "i1", ContainerId: "c1", Attempt: 1,
		Address: "127.0.0.1:9", Host: "shop.apps.localhost", Sequence: 40,
		HealthCheck: &deploymentv1.HealthCheck{Path: "/", UnhealthyAfter: 3},
	}
}

var (
	good = outcome{ok: true}
	bad  = outcome{reason: "nothing listens on port 9"}
)

// see feeds outcomes and returns the ids of the changes, each recorded at the next
// sequence, as the log would.
func see(t *tracker, sequence uint64, outcomes ...outcome) []string {
	var ids []string
	for _, o := range outcomes {
		if c, due := t.observe(o); due {
			ids = append(ids, c.id)
			sequence++
			t.recorded(c, sequence)
		}
	}
	return ids
}

func equal(t *testing.T, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

func TestAnAppThatStartsIsSaidHealthyOnce(t *testing.T) {
	t.Parallel()
	equal(t, see(newTracker(target()), 50, bad, bad, bad, bad, good, good, good),
		[]string{"health/i1/c1/1/healthy-after-40"})
}

func TestOnlySoManyFailuresInARowAreUnhealthy(t *testing.T) {
	t.Parallel()
	equal(t, see(newTracker(target()), 50, good, bad, bad, good, bad, bad, bad, bad, good), []string{
		"health/i1/c1/1/healthy-after-40",
		"health/i1/c1/1/unhealthy-after-51",
		"health/i1/c1/1/healthy-after-52",
	})
}

func TestARestartedProberSaysOnlyWhatChanges(t *testing.T) {
	t.Parallel()
	known := target()
	known.Healthy = true
	equal(t, see(newTracker(known), 50, good, good), nil)

	first, again := newTracker(target()), newTracker(target())
	equal(t, see(first, 50, good), see(again, 50, good))
}

func TestAChangeThatCouldNotBeRecordedIsDueAgainUnderTheSameID(t *testing.T) {
	t.Parallel()
	tr := newTracker(target())
	first, _ := tr.observe(good)
	again, due := tr.observe(good)
	if !due || first.id != again.id {
		t.Fatalf("got %q, due %v, want %q again", again.id, due, first.id)
	}
}

func TestAViewThatLagsBehindDoesNotUndoWhatWasRecorded(t *testing.T) {
	t.Parallel()
	tr := newTracker(target())
	equal(t, see(tr, 50, good), []string{"health/i1/c1/1/healthy-after-40"})
	late := target()
	late.Sequence = 45
	tr.adopt(late)
	equal(t, see(tr, 60, good), nil)

	newer := target()
	newer.Sequence, newer.Healthy = 70, false
	tr.adopt(newer)
	equal(t, see(tr, 80, good), []string{"health/i1/c1/1/healthy-after-70"})
}

func TestAnotherAttemptIsAnotherStory(t *testing.T) {
	t.Parallel()
	tr := newTracker(target())
	next := target()
	next.Sequence, next.Healthy = 90, true
	if !tr.sameAttempt(next) {
		t.Error("a newer sequence alone must not begin again")
	}
	next.Attempt = 2
	if tr.sameAttempt(next) {
		t.Error("a container that was started again must be asked anew")
	}
}

func TestProbesComeFastUntilTheFirstAnswerThenAtTheInterval(t *testing.T) {
	t.Parallel()
	tr := newTracker(target())
	if d := tr.first(10*time.Second, 1); d != 0 {
		t.Errorf("the first probe waits %s, want at once", d)
	}
	if d := tr.next(10*time.Second, 0.5); d != 5*time.Millisecond {
		t.Errorf("the second probe waits %s, want 5ms", d)
	}
	last := 5 * time.Millisecond
	for range 30 {
		d := tr.next(10*time.Second, 0.5)
		if d < last || d > 250*time.Millisecond {
			t.Fatalf("%s after %s: want growth up to 250ms", d, last)
		}
		last = d
	}
	if last != 250*time.Millisecond {
		t.Errorf("ends at %s, want 250ms", last)
	}
	see(tr, 50, good)
	for jitter, want := range map[float64]time.Duration{0: 9 * time.Second, 0.5: 10 * time.Second, 1: 11 * time.Second} {
		if d := tr.next(10*time.Second, jitter); d != want {
			t.Errorf("jitter %v: waits %s, want %s", jitter, d, want)
		}
	}
}

func TestAStartingAppIsReportedOnChangeAndOnceASecond(t *testing.T) {
	t.Parallel()
	tr := newTracker(target())
	began := time.Unix(1000, 0)
	reported := 0
	for i := range 40 { // 40 probes in 2 s
		o := bad
		o.at = began.Add(time.Duration(i) * 50 * time.Millisecond)
		tr.observe(o)
		if tr.report(o) {
			reported++
		}
	}
	if reported != 2 {
		t.Errorf("reported %d of 40 failures in 2 s, want 2", reported)
	}
	other := outcome{reason: "GET / answered 500", at: began.Add(2 * time.Second)}
	if !tr.report(other) {
		t.Error("another reason must be reported")
	}
	see(tr, 50, good)
	if !tr.report(good) || !tr.report(good) {
		t.Error("each probe of a healthy app must be reported")
	}
}
