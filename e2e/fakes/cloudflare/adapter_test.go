package cloudflare_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	fake "github.com/slipway-paas/slipway/e2e/fakes/cloudflare"
	"github.com/slipway-paas/slipway/services/dns/cloudflare"
	"github.com/slipway-paas/slipway/services/dns/zone"
)

func TestEveryFailureIsToldForWhatItIs(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault fake.Fault
		token string
		want  error
	}{
		"an outage":           {fake.Fault{Status: 503}, "", zone.ErrUnavailable},
		"a page for browsers": {fake.Fault{Garbage: true}, "", zone.ErrUnavailable},
		"a lost answer":       {fake.Fault{Lost: true, Done: true}, "", zone.ErrUnavailable},
		"a limit":             {fake.Fault{Status: 429, RetryAfter: "1"}, "", zone.ErrLimited},
		"a wrong token":       {fake.Fault{}, "not-the-one", zone.ErrUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api, url := serve(t, fake.Options{Zones: []string{"example.test"}})
			api.Fail(func(*http.Request) fake.Fault { return c.fault })
			token := "fake-token"
			if c.token != "" {
				token = c.token
			}
			_, err := open(t, cloudflare.Config{Token: token, Owner: "o", URL: url}).Zones(t.Context())
			if !errors.Is(err, c.want) {
				t.Errorf("told: %v", err)
			}
			if err != nil && strings.Contains(err.Error(), token) {
				t.Error("the error tells the token")
			}
		})
	}
	t.Run("silence", func(t *testing.T) {
		t.Parallel()
		api, url := serve(t, fake.Options{Zones: []string{"example.test"}})
		api.Latency(time.Minute)
		_, err := open(t, cloudflare.Config{Token: "fake-token", Owner: "o", URL: url, Timeout: 50 * time.Millisecond}).Zones(t.Context())
		if !errors.Is(err, zone.ErrUnavailable) {
			t.Errorf("told: %v", err)
		}
	})
}

func TestA429IsHonouredByAllCallsOfAClient(t *testing.T) {
	t.Parallel()
	api, url := serve(t, fake.Options{Zones: []string{"example.test"}})
	client := open(t, cloudflare.Config{Token: "fake-token", Owner: "o", URL: url})
	var asked atomic.Int32
	api.Fail(func(*http.Request) fake.Fault {
		if asked.Add(1) == 1 {
			return fake.Fault{Status: 429, RetryAfter: "1"}
		}
		return fake.Fault{}
	})
	if _, err := client.Zones(t.Context()); !errors.Is(err, zone.ErrLimited) {
		t.Fatalf("at first: %v", err)
	}
	// Who cannot wait so long is told at once, and nothing is asked.
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := client.Zones(short); !errors.Is(err, zone.ErrLimited) || asked.Load() != 1 {
		t.Errorf("in a hurry: %v after %d requests", err, asked.Load())
	}
	began := time.Now()
	if _, err := client.Zones(t.Context()); err != nil {
		t.Fatal(err)
	}
	if waited := time.Since(began); waited < 500*time.Millisecond {
		t.Errorf("it waited %v, not until the second was over", waited)
	}
}

func TestCallsKeepUnderTheRate(t *testing.T) {
	t.Parallel()
	api, url := serve(t, fake.Options{Zones: []string{"example.test"}})
	// 3000 in five minutes are ten a second; the first forty go at once.
	client := open(t, cloudflare.Config{Token: "fake-token", Owner: "o", URL: url, PerWindow: 3000})
	began := time.Now()
	for range 48 {
		if _, err := client.Zones(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took < 500*time.Millisecond {
		t.Errorf("48 calls took %v", took)
	}
	if answered := api.Answers()[200]; answered != 48 {
		t.Errorf("%d answers", answered)
	}
}
