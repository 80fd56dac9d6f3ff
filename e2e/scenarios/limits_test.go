package scenarios

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/e2e/stack"
)

// sent is what the first operator gets for a request with more headers, as name, value
// pairs.
func sent(ctx context.Context, s *stack.Stack, method, path, body string, headers ...string) (client.Answer, error) {
	request, err := http.NewRequestWithContext(ctx, method, s.API+path, strings.NewReader(body))
	if err != nil {
		return client.Answer{}, err
	}
	request.Header.Set("Authorization", "Bearer "+s.Token)
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return client.Answer{}, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return client.Answer{Status: response.StatusCode, Header: response.Header, Body: content}, err
}

// send is sent when nothing else will do.
func send(t *testing.T, s *stack.Stack, method, path, body string, headers ...string) client.Answer {
	t.Helper()
	answer, err := sent(t.Context(), s, method, path, body, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// The limits are those that the seed's table has, without being told.
func TestTheSeedsLimitsHold(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Standalone, stack.Options{RateLimits: map[string]string{"reads": "30", "writes": "10", "sign-ins": "10"}})
	for _, endpoint := range []struct {
		method, path string
		quota        int
	}{
		{"GET", "/api/deploy/apps", 30}, {"POST", "/api/deploy/apps", 10},
		{"DELETE", "/api/deploy/apps/550e8400-e29b-41d4-a716-446655440000", 10}, {"POST", "/api/auth/login", 10},
	} {
		for i := range endpoint.quota {
			answer := send(t, s, endpoint.method, endpoint.path, "{}")
			if answer.Status == http.StatusTooManyRequests {
				t.Fatalf("%s %s: request %d: %s", endpoint.method, endpoint.path, i+1, answer)
			}
			if left := answer.Header.Get("RateLimit"); !strings.Contains(left, ";r="+strconv.Itoa(endpoint.quota-1-i)+";t=") {
				t.Errorf("%s %s: request %d: RateLimit: %s", endpoint.method, endpoint.path, i+1, left)
			}
		}
		refused := send(t, s, endpoint.method, endpoint.path, "{}")
		after, err := strconv.Atoi(refused.Header.Get("Retry-After"))
		if refused.Status != http.StatusTooManyRequests || refused.JSON()["code"] != "rate_limited" || err != nil || after < 1 || after > 61 {
			t.Errorf("%s %s: one more: %s, %v", endpoint.method, endpoint.path, refused, refused.Header)
		}
		if policy := refused.Header.Get("RateLimit-Policy"); !strings.HasSuffix(policy, ";q="+strconv.Itoa(endpoint.quota)+";w=60") {
			t.Errorf("%s %s: RateLimit-Policy: %s", endpoint.method, endpoint.path, policy)
		}
	}
	// What is used up at one endpoint is there at another.
	if answer := send(t, s, "GET", "/api/deploy/tiers", ""); answer.Status != http.StatusOK {
		t.Errorf("another endpoint: %s", answer)
	}
}

// A client that does not know whether its request arrived sends it again, to a daemon
// that was killed meanwhile.
func TestARequestSentAgainIsDoneOnce(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Standalone, stack.Options{Env: []string{"SLIPWAY_LOG_LEVEL=debug"}})
	image := push(t, s, "latest", "one")
	body := `{"subdomain":"` + name(t) + `","image":"` + image + `","tier":"buddo-starter","port":8080,"env_vars":{"TOKEN":"planted-in-a-body"}}`
	const key = `"8e03978e-40d5-43dd-bc93-6894a57f9324"`
	answers := make([]client.Answer, 50)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() {
			var err error
			if answers[i], err = sent(t.Context(), s, "POST", "/api/deploy/apps", body, "Idempotency-Key", key); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	first := answers[0]
	for _, a := range answers {
		if a.Status != http.StatusCreated || !bytes.Equal(a.Body, first.Body) {
			t.Fatalf("%s and %s", first, a)
		}
	}
	if err := s.Process(stack.Daemon).Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(stack.Daemon); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := send(t, s, "POST", "/api/deploy/apps", body, "Idempotency-Key", key)
	if again.Status != http.StatusCreated || !bytes.Equal(again.Body, first.Body) || again.Header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("first %s, and to the next daemon %s, %v", first, again, again.Header)
	}
	other := send(t, s, "POST", "/api/deploy/apps", strings.Replace(body, "buddo-starter", "buddo-pro", 1), "Idempotency-Key", key)
	if other.Status != http.StatusUnprocessableEntity || other.JSON()["code"] != "idempotency_key_reused" {
		t.Errorf("the same key with another body: %s", other)
	}
	if list := send(t, s, "GET", "/api/deploy/apps", "").List("deployments"); len(list) != 1 {
		t.Errorf("%d deployments", len(list))
	}
	searchFor(t, s, []byte("planted-in-a-body"), s.Token)
}

// The daemon is killed while it works on the request: whether the command was taken or
// not, the next attempt makes one deployment of it.
func TestARequestThatADaemonDiedOverIsDoneOnce(t *testing.T) {
	t.Parallel()
	s := own(t, stack.Standalone, stack.Options{})
	image := push(t, s, "latest", "one")
	for round := range 3 {
		subdomain := name(t, strconv.Itoa(round))
		body := `{"subdomain":"` + subdomain + `","image":"` + image + `","tier":"btc-standard","port":8080}`
		key := "round-" + strconv.Itoa(round)
		// Many at once, so that the kill meets some of them in the middle.
		ctx, hangUp := context.WithCancel(t.Context())
		var all sync.WaitGroup
		answered := make(chan struct{}, 16)
		for range 16 {
			all.Go(func() {
				// What is killed answers nothing.
				if _, err := sent(ctx, s, "POST", "/api/deploy/apps", body, "Idempotency-Key", key); err == nil {
					answered <- struct{}{}
				}
			})
		}
		select {
		case <-answered:
		case <-time.After(time.Duration(round) * 4 * time.Millisecond):
		}
		if err := s.Process(stack.Daemon).Kill(); err != nil {
			t.Fatal(err)
		}
		hangUp()
		all.Wait()
		if err := s.Restart(stack.Daemon); err != nil {
			t.Fatal(err)
		}
		if err := s.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		var last client.Answer
		eventually(t, "the request is answered", func(context.Context) (bool, string, error) {
			last = send(t, s, "POST", "/api/deploy/apps", body, "Idempotency-Key", key)
			return last.Status == http.StatusCreated, last.String(), nil
		})
		made := 0
		for _, d := range send(t, s, "GET", "/api/deploy/apps", "").List("deployments") {
			if d["subdomain"] == subdomain {
				made++
				if d["id"] != last.Object("deployment")["id"] {
					t.Errorf("the answer is %s, and there is %v", last, d)
				}
			}
		}
		if made != 1 {
			t.Errorf("round %d made %d deployments", round, made)
		}
	}
}
