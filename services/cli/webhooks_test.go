package cli_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const hookID = "0198f3b2-0000-7000-8000-00000000000a"

// hooks is the part of the API that sets up webhooks; it notes what it was asked for.
type hooks struct {
	platform
	asked    []string
	accepted bool
}

func openHooks(t *testing.T) *hooks {
	t.Helper()
	h := &hooks{accepted: true}
	one := `{"id":"` + hookID + `","url":"https://example.com/hook","description":"\u001b[31mred","types":["DeploymentRunning"],"aggregates":[],` +
		`"created_by":"op","created_at":"2026-05-21T10:00:00Z","status":"disabled","disabled_reason":"gone"}`
	answers := map[string]string{
		"POST /api/v1/webhooks": `{"webhook":` + one + `,"secret":"whsec_c2VjcmV0"}`, "GET /api/v1/webhooks": `{"webhooks":[` + one + `]}`,
		"GET /": `{"webhook":` + one + `}`, "PUT /": `{"webhook":` + one + `}`, "POST /enable": `{"webhook":` + one + `}`, "DELETE /": `{"message":"Deleted"}`,
		"POST /rotate-secret": `{"webhook":` + one + `,"secret":"whsec_bmV3"}`, "POST /replay": `{"replayed":3,"last_sequence":41}`,
		"GET /deliveries": `{"deliveries":[{"id":"msg_1","event_type":"DeploymentRunning","event_sequence":41,"status":"failed","attempts":9,"last_status":500,` +
			`"last_error":"It answered 500.","created_at":"2026-05-21T10:00:00Z","last_attempt_at":"2026-05-21T10:00:00Z","next_attempt_at":null}]}`,
	}
	h.platform = platform{Server: httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		verb, about := strings.CutPrefix(r.URL.Path, "/api/v1/webhooks/"+hookID)
		what := r.Method + " " + r.URL.Path
		if about {
			what = r.Method + " /" + strings.TrimPrefix(verb, "/")
		}
		h.asked = append(h.asked, strings.TrimSpace(what+" "+string(body)))
		answer, known := answers[what]
		if what == "POST /test" {
			answer, known = fmt.Sprintf(`{"id":"msg_t","accepted":%v,"status":%d,"error":%q}`, h.accepted, map[bool]int{true: 204}[h.accepted], map[bool]string{false: "It did not answer in time."}[h.accepted]), true
		}
		if !known {
			w.WriteHeader(http.StatusNotFound)
			answer = `{"status":404,"code":"not_found","message":"There is no such webhook."}`
		}
		_, _ = io.WriteString(w, answer)
	}))}
	t.Cleanup(h.Close)
	return h
}

func (h *hooks) askedFor(t *testing.T, want ...string) {
	t.Helper()
	if got := strings.Join(h.asked, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("it asked for\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	h.asked = nil
}

func TestWebhooksAreMadeChangedAndEnded(t *testing.T) {
	t.Parallel()
	h := openHooks(t)
	h.slipway(t, "webhooks:create", "https://example.com/hook", "--type", "A,B", "--type", "C", "--aggregate", "deployment", "--description", "d").
		want(t, 0, "whsec_c2VjcmV0", "not shown again")
	h.askedFor(t, `POST /api/v1/webhooks {"url":"https://example.com/hook","description":"d","types":["A","B","C"],"aggregates":["deployment"]}`)
	for _, list := range []string{"webhooks", "webhooks:list"} {
		h.slipway(t, list).want(t, 0, "disabled (gone)")
	}
	h.asked = nil
	shown := h.slipway(t, "webhooks:info", hookID)
	if shown.want(t, 0, "https://example.com/hook"); strings.Contains(shown.out, "\x1b") {
		t.Errorf("%q steers the terminal", shown.out)
	}
	h.askedFor(t, "GET /")
	h.slipway(t, "webhooks:update", hookID, "--url", "https://example.com/new", "--description", "").want(t, 0, hookID)
	h.askedFor(t, "GET /", `PUT / {"url":"https://example.com/new","description":"","types":["DeploymentRunning"],"aggregates":[]}`)
	h.slipway(t, "webhooks:update", hookID, "--type=").want(t, 0, hookID)
	h.askedFor(t, "GET /", `PUT / {"url":"https://example.com/hook","description":"\u001b[31mred","types":[],"aggregates":[]}`)
	h.slipway(t, "webhooks:update", hookID).want(t, 2, "", "nothing to change")
	h.slipway(t, "webhooks:rotate-secret", hookID).want(t, 0, "whsec_bmV3", "not shown again")
	h.slipway(t, "webhooks:enable", hookID).want(t, 0, hookID)
	h.slipway(t, "webhooks:delete", hookID).want(t, 2, "", "--yes")
	h.askedFor(t, "POST /rotate-secret", "POST /enable")
	h.slipway(t, "webhooks:delete", hookID, "--yes").want(t, 0, "Deleted")
	h.askedFor(t, "DELETE /")
	h.slipway(t, "webhooks:info", "../../x").want(t, 4, "", "no such webhook")
}

func TestWebhooksAreTestedWatchedAndReplayed(t *testing.T) {
	t.Parallel()
	h := openHooks(t)
	h.slipway(t, "webhooks:test", hookID).want(t, 0, "answered 204")
	h.accepted = false
	h.slipway(t, "webhooks:test", hookID).want(t, 1, "", "did not answer in time")
	h.slipway(t, "webhooks:deliveries", hookID).want(t, 0, "It answered 500.")
	h.askedFor(t, "POST /test", "POST /test", "GET /deliveries")
	h.slipway(t, "webhooks:replay", hookID, "--after", "7").want(t, 0, "3 deliveries")
	h.slipway(t, "webhooks:replay", hookID, "--delivery", "msg_1").want(t, 0, "3 deliveries")
	h.askedFor(t, `POST /replay {"after_sequence":7}`, `POST /replay {"delivery_id":"msg_1"}`)
	h.slipway(t, "webhooks:replay", hookID).want(t, 2, "", "--after")
	h.slipway(t, "webhooks:replay", hookID, "--after", "0", "--delivery", "x").want(t, 2, "", "--after")
	h.askedFor(t)
}

func TestWebhooksInJSONKeepTheirShape(t *testing.T) {
	t.Parallel()
	h := openHooks(t)
	for _, c := range []struct {
		args string
		want []string
	}{
		{"webhooks", []string{"webhooks"}}, {"webhooks:create https://x.example", []string{"webhook", "secret"}}, {"webhooks:info " + hookID, []string{"webhook"}},
		{"webhooks:update --url https://x.example " + hookID, []string{"webhook"}}, {"webhooks:enable " + hookID, []string{"webhook"}},
		{"webhooks:rotate-secret " + hookID, []string{"webhook", "secret"}}, {"webhooks:test " + hookID, []string{"id", "accepted", "status", "error"}},
		{"webhooks:deliveries " + hookID, []string{"deliveries"}}, {"webhooks:replay --after 0 " + hookID, []string{"replayed", "last_sequence"}},
		{"webhooks:delete --yes " + hookID, []string{"message", "id"}},
	} {
		got := h.slipway(t, append(strings.Fields(c.args), "--json")...)
		var fields map[string]any
		if err := json.Unmarshal([]byte(got.out), &fields); err != nil || got.code != 0 || len(fields) != len(c.want) {
			t.Errorf("%s: %d, %q, %q: %v", c.args, got.code, got.out, got.errors, err)
		}
		for _, field := range c.want {
			if _, ok := fields[field]; !ok {
				t.Errorf("%s has no %s: %q", c.args, field, got.out)
			}
		}
	}
}
