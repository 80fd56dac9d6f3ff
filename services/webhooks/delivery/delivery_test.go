package delivery_test

import (
	"testing"
	"time"

	"github.com/slipway-paas/slipway/services/webhooks/delivery"
)

func TestWaitsGrowAndEndAfterSomeHours(t *testing.T) {
	t.Parallel()
	var total, before time.Duration
	attempts := 1
	for ; ; attempts++ {
		wait, again := delivery.Wait(attempts, 0.5, 0)
		if !again {
			break
		}
		if wait < before || wait > 6*time.Hour {
			t.Errorf("after attempt %d comes %s, before it %s", attempts, wait, before)
		}
		total, before = total+wait, wait
	}
	if attempts != delivery.MaxAttempts || total < 6*time.Hour || total > 24*time.Hour {
		t.Errorf("given up after %d attempts and %s", attempts, total)
	}
	least, _ := delivery.Wait(1, 0, 0)
	most, _ := delivery.Wait(1, 1, 0)
	if least != 4*time.Second || most != 6*time.Second {
		t.Errorf("the first wait is between %s and %s", least, most)
	}
	if _, again := delivery.Wait(0, 0, 0); again {
		t.Error("no attempt is tried again")
	}
}

func TestAnEndpointMayAskForMoreTimeWithinReason(t *testing.T) {
	t.Parallel()
	for asked, want := range map[time.Duration]time.Duration{0: 5 * time.Second, time.Second: 5 * time.Second, time.Hour: time.Hour, 24 * time.Hour: 6 * time.Hour} {
		if wait, again := delivery.Wait(1, 0.5, asked); wait != want || !again {
			t.Errorf("asked for %s it waits %s", asked, wait)
		}
	}
	if _, again := delivery.Wait(delivery.MaxAttempts, 0.5, time.Second); again {
		t.Error("it asks for ever")
	}
}

func TestAnEndpointIsDeadAfterDaysWithoutOneSuccess(t *testing.T) {
	t.Parallel()
	enabled := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	day := func(n int) time.Time { return enabled.AddDate(0, 0, n) }
	failed := func(n int) delivery.Past {
		return delivery.Past{Status: delivery.Failed, Attempts: 9, FirstAttempt: day(n), LastTry: day(n)}
	}
	done := func(n int) delivery.Past {
		return delivery.Past{Status: delivery.Delivered, Attempts: 1, FirstAttempt: day(n), LastTry: day(n)}
	}
	for name, c := range map[string]struct {
		past []delivery.Past
		now  int
		dead bool
	}{
		"nothing happened":      {nil, 99, false},
		"failing since day 1":   {[]delivery.Past{failed(2), failed(1)}, 6, true},
		"not for long enough":   {[]delivery.Past{failed(2), failed(3)}, 6, false},
		"a success in between":  {[]delivery.Past{failed(1), done(2), failed(3)}, 7, false},
		"before it was enabled": {[]delivery.Past{failed(-9)}, 6, false},
		"not tried yet":         {[]delivery.Past{{Status: delivery.Pending, FirstAttempt: day(1)}}, 9, false},
	} {
		if got := delivery.Dead(delivery.FailingSince(c.past, enabled), day(c.now)); got != c.dead {
			t.Errorf("%s: dead is %v", name, got)
		}
	}
}

func TestAnIDIsTheEventsAndTheWebhooksOwn(t *testing.T) {
	t.Parallel()
	if delivery.ID("a", 1) != delivery.ID("a", 1) || delivery.ID("a", 1) == delivery.ID("a", 2) || delivery.ID("a", 1) == delivery.ID("b", 1) {
		t.Error("it is not")
	}
}
