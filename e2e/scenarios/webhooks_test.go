package scenarios

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/slipway-paas/slipway/e2e/stack"
)

// receiver is an endpoint outside. It answers each message with the next of its answers,
// and with the last of them from then on.
type receiver struct {
	*httptest.Server
	mu      sync.Mutex
	answers []int
	got     []message
}

type message struct {
	header http.Header
	body   []byte
}

func (m message) id() string { return m.header.Get("webhook-id") }

func receive(t *testing.T, answers ...int) *receiver {
	t.Helper()
	r := &receiver{answers: answers}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.got = append(r.got, message{req.Header, body})
		answer := r.answers[0]
		if len(r.answers) > 1 {
			r.answers = r.answers[1:]
		}
		if answer >= 300 && answer < 400 {
			w.Header().Set("Location", r.URL+"/elsewhere")
		}
		w.WriteHeader(answer)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) received() []message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// insideEndpoints lets webhooks go to this machine's own address and to nothing else inside.
func insideEndpoints() []string { return []string{"127.0.0.1/32"} }

// hook is a webhook as its owner sees it by the command line.
type hook struct {
	t  *testing.T
	s  *stack.Stack
	id string
	// secrets sign, the newest first.
	secrets []string
}

// slipway runs the command line with --json, as the first operator.
func slipway(t *testing.T, s *stack.Stack, args ...string) (map[string]any, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), s.Binary("slipway"), append(args, "--json")...)
	cmd.Dir, cmd.Env = t.TempDir(), []string{"SLIPWAY_API_URL=" + s.API, "SLIPWAY_TOKEN=" + s.Token, "HOME=" + t.TempDir()}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("slipway %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	var answer map[string]any
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		return nil, fmt.Errorf("slipway %s said %q: %w", strings.Join(args, " "), out.String(), err)
	}
	return answer, nil
}

func (h hook) slipway(args ...string) map[string]any {
	h.t.Helper()
	answer, err := slipway(h.t, h.s, args...)
	if err != nil {
		h.t.Fatal(err)
	}
	return answer
}

func hooked(t *testing.T, s *stack.Stack, url string, types ...string) hook {
	t.Helper()
	h := hook{t: t, s: s}
	made := h.slipway("webhooks:create", url, "--type", strings.Join(types, ","))
	h.id, _ = made["webhook"].(map[string]any)["id"].(string)
	secret, _ := made["secret"].(string)
	h.secrets = []string{secret}
	return h
}

// delivery waits until the newest delivery is as it should be.
func (h hook) delivery(what string, so func(d map[string]any) bool) map[string]any {
	h.t.Helper()
	var found map[string]any
	eventually(h.t, what, func(context.Context) (bool, string, error) {
		list, _ := h.slipway("webhooks:deliveries", h.id)["deliveries"].([]any)
		if len(list) == 0 {
			return false, "no deliveries", nil
		}
		found, _ = list[0].(map[string]any)
		return so(found), fmt.Sprint(found), nil
	})
	return found
}

// signed checks a message as a receiver would, with the public library.
func (h hook) signed(m message) {
	h.t.Helper()
	for i, secret := range h.secrets {
		verifier, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			h.t.Fatal(err)
		}
		if err := verifier.Verify(m.body, m.header); err != nil {
			h.t.Errorf("secret %d: %v", i, err)
		}
		if verifier.Verify(append(slices.Clone(m.body), ' '), m.header) == nil {
			h.t.Error("a body that was changed verifies")
		}
	}
}

func TestTheStoryOfAWebhook(t *testing.T) {
	t.Parallel()
	for shape, start := range map[string]func(context.Context, stack.Options) (*stack.Stack, error){"one process": stack.Standalone, "many processes": stack.Processes} {
		t.Run(shape, func(t *testing.T) {
			t.Parallel()
			s := own(t, start, stack.Options{Inside: insideEndpoints()})
			h, r := webhookIsRetried(t, s)
			webhookIsReplayedAndRotated(t, h, r)
			webhookIsGone(t, h)
			webhooksLeadNowhereInside(t, s)
		})
	}
}

// webhookIsRetried: an endpoint that is busy is told again, the same message.
func webhookIsRetried(t *testing.T, s *stack.Stack) (hook, *receiver) {
	t.Helper()
	r := receive(t, http.StatusServiceUnavailable, http.StatusNoContent)
	h := hooked(t, s, r.URL+"/hook", "DeploymentRequested")
	made := expect(t, s.Client(), http.StatusCreated, http.MethodPost, "/api/deploy/apps",
		map[string]any{"subdomain": name(t, "hook"), "image": s.Image("e2e/nobody-pushed-this:1"), "tier": "buddo-starter"}).Object("deployment")
	failed := h.delivery("the first attempt is listed", func(d map[string]any) bool { return d["last_status"] == 503.0 })
	if failed["status"] == "pending" && failed["next_attempt_at"] == nil || failed["event_type"] != "DeploymentRequested" {
		t.Errorf("after the first attempt it is listed as %v", failed)
	}
	taken := h.delivery("it is tried again", func(d map[string]any) bool { return d["status"] == "delivered" })
	got := r.received()
	if len(got) != 2 || taken["attempts"] != 2.0 || got[0].id() != got[1].id() || got[0].id() != taken["id"] || !bytes.Equal(got[0].body, got[1].body) {
		t.Fatalf("%d messages, listed as %v", len(got), taken)
	}
	for _, m := range got {
		h.signed(m)
	}
	var event struct {
		SpecVersion, Type, Subject string
		Data                       map[string]any
	}
	if err := json.Unmarshal(got[1].body, &event); err != nil || event.SpecVersion != "1.0" || event.Type != "DeploymentRequested" || event.Subject != fmt.Sprintf("deployment/%s", made["id"]) {
		t.Errorf("it was sent %s, %v", got[1].body, err)
	}
	return h, r
}

// webhookIsReplayedAndRotated: a replay is the same message, signed with the old secret
// and with the new one.
func webhookIsReplayedAndRotated(t *testing.T, h hook, r *receiver) {
	t.Helper()
	rotated, _ := h.slipway("webhooks:rotate-secret", h.id)["secret"].(string)
	h.secrets = append([]string{rotated}, h.secrets...)
	first := r.received()[0]
	if done := h.slipway("webhooks:replay", h.id, "--delivery", first.id()); done["replayed"] != 1.0 {
		t.Errorf("the replay says %v", done)
	}
	eventually(t, "it is told again", func(context.Context) (bool, string, error) {
		return len(r.received()) == 3, strconv.Itoa(len(r.received())), nil
	})
	h.delivery("the replay has ended", func(d map[string]any) bool { return d["status"] == "delivered" })
	if done := h.slipway("webhooks:replay", h.id, "--after", "0"); done["replayed"] != 1.0 {
		t.Errorf("the replay of all says %v", done)
	}
	eventually(t, "it is told once more", func(context.Context) (bool, string, error) {
		return len(r.received()) == 4, strconv.Itoa(len(r.received())), nil
	})
	for _, m := range r.received()[2:] {
		if m.id() != first.id() || !bytes.Equal(m.body, first.body) {
			t.Errorf("the replay %s is %s", m.id(), m.body)
		}
		h.signed(m)
	}
	if tested := h.slipway("webhooks:test", h.id); tested["accepted"] != true || tested["status"] != 204.0 {
		t.Errorf("the test says %v", tested)
	}
	h.signed(r.received()[4])
}

// webhookIsGone: an endpoint that says so is told nothing more.
func webhookIsGone(t *testing.T, h hook) {
	t.Helper()
	r := receive(t, http.StatusGone)
	if w, _ := h.slipway("webhooks:update", h.id, "--url", r.URL)["webhook"].(map[string]any); w["url"] != r.URL || w["status"] != "enabled" {
		t.Errorf("it became %v", w)
	}
	h.slipway("webhooks:replay", h.id, "--after", "0")
	eventually(t, "it is disabled", func(context.Context) (bool, string, error) {
		w, _ := h.slipway("webhooks:info", h.id)["webhook"].(map[string]any)
		return w["status"] == "disabled" && w["disabled_reason"] == "gone", fmt.Sprint(w), nil
	})
	if n := len(r.received()); n != 1 {
		t.Errorf("it was told %d times", n)
	}
}

// webhooksLeadNowhereInside: neither by their URL, nor by a name, nor by a redirect.
func webhooksLeadNowhereInside(t *testing.T, s *stack.Stack) {
	t.Helper()
	for _, url := range []string{
		"http://10.0.0.1/", "http://127.0.0.2:8080/", "http://169.254.169.254/latest/meta-data/", "http://[::1]:8080/", "http://[::ffff:10.0.0.1]/", "http://[fd00::1]/",
		"http://0.0.0.0/", "ftp://example.com/", "https://user:secret@example.com/",
	} {
		answer := call(t, s.Client(), http.MethodPost, "/api/v1/webhooks", map[string]any{"url": url})
		if answer.Status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %s", url, answer)
		}
		isProblem(t, answer)
	}
	r := receive(t, http.StatusTemporaryRedirect)
	h := hooked(t, s, r.URL, "DeploymentRequested")
	h.slipway("webhooks:replay", h.id, "--after", "0")
	h.delivery("the redirect is a failure", func(d map[string]any) bool {
		why, _ := d["last_error"].(string)
		return d["status"] == "pending" && d["last_status"] == 307.0 && strings.Contains(why, "redirect")
	})
	if n := len(r.received()); n != 1 {
		t.Errorf("the redirect was followed: %d messages", n)
	}
	if answer, err := slipway(t, s, "webhooks:test", h.id); err == nil {
		t.Errorf("a test that is redirected says %v", answer)
	}
}
