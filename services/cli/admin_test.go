package cli_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// house is the part of the API that admins use.
type house struct {
	platform
	instances int
	differ    bool
	letters   map[string]bool // id to whether a replay works
	watched   chan struct{}
}

func openHouse(t *testing.T) *house {
	t.Helper()
	h := &house{instances: 2, letters: map[string]bool{"deployments-7": true, "deployments-9": false}, watched: make(chan struct{})}
	mux := http.NewServeMux()
	say := func(w http.ResponseWriter, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }
	node := func() string {
		return fmt.Sprintf(`{"node_id":"n1","status":"draining","instances":%d,"memory_mb":1024,"used_memory_mb":512}`, h.instances)
	}
	mux.HandleFunc("GET /api/v1/admin/nodes", func(w http.ResponseWriter, _ *http.Request) {
		h.instances = max(0, h.instances-1)
		say(w, `{"nodes":[%s]}`, node())
	})
	mux.HandleFunc("POST /api/v1/admin/nodes/{id}/{verb}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") != "n1" {
			w.WriteHeader(404)
			say(w, `{"status":404,"code":"not_found","message":"Node not found."}`)
			return
		}
		say(w, `{"node":%s}`, node())
	})
	looks := 0
	mux.HandleFunc("GET /api/v1/admin/projections/deployments", func(w http.ResponseWriter, _ *http.Request) {
		say(w, `{"projection":{"name":"deployments","rebuild":{"position":40,"target":100}}}`)
		// Who looks a second time has seen the first answer.
		if looks++; looks == 2 {
			close(h.watched)
		}
	})
	mux.HandleFunc("POST /api/v1/admin/projections/deployments/rebuild", func(w http.ResponseWriter, r *http.Request) {
		<-h.watched
		accept := r.URL.Query().Get("accept_differences") == "true"
		difference := ""
		if h.differ {
			difference = `"deployments id=\"x\": only in the live rows"`
		}
		say(w, `{"name":"deployments","events":100,"rows":30,"identical":%v,"differences":[%s],"seconds":1.25,"swapped":%v}`, !h.differ, difference, !h.differ || accept)
	})
	mux.HandleFunc("POST /api/v1/admin/keys/rotate", func(w http.ResponseWriter, _ *http.Request) {
		say(w, `{"key":"0a1b2c3d","resumed":%v,"data_keys":4,"rewrapped":3,"unreadable":1,"dropped":["ffffffff"],"old":[]}`, h.differ)
	})
	letter := func(id string) string {
		return fmt.Sprintf(`{"id":%q,"event_type":"ContainerExited","subject":"evt.acme.deployment.d.ContainerExited","error":"it \u001b[31m failed","failed_at":"2026-05-21T10:00:00Z","data":{"exit_code":1}}`, id)
	}
	mux.HandleFunc("GET /api/v1/admin/dead-letters", func(w http.ResponseWriter, _ *http.Request) {
		var all []string
		for _, id := range []string{"deployments-7", "deployments-9"} {
			if _, there := h.letters[id]; there {
				all = append(all, letter(id))
			}
		}
		say(w, `{"dead_letters":[%s]}`, strings.Join(all, ","))
	})
	mux.HandleFunc("/api/v1/admin/dead-letters/{id}", func(w http.ResponseWriter, r *http.Request) {
		if _, there := h.letters[r.PathValue("id")]; !there {
			w.WriteHeader(404)
			say(w, `{"status":404,"code":"not_found","message":"There is no dead letter with this id."}`)
			return
		}
		if r.Method == http.MethodDelete {
			delete(h.letters, r.PathValue("id"))
			say(w, `{"message":"Dead letter dropped; its event stays in the log"}`)
			return
		}
		say(w, `{"dead_letter":%s}`, letter(r.PathValue("id")))
	})
	mux.HandleFunc("POST /api/v1/admin/dead-letters/{id}/replay", func(w http.ResponseWriter, r *http.Request) {
		if !h.letters[r.PathValue("id")] {
			w.WriteHeader(422)
			say(w, `{"status":422,"code":"invalid_state","message":"The dead letter stays: it failed again."}`)
			return
		}
		delete(h.letters, r.PathValue("id"))
		say(w, `{"dead_letter":%s}`, letter(r.PathValue("id")))
	})
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Only the rebuild waits, for a question that is asked meanwhile.
		if !strings.HasSuffix(r.URL.Path, "/rebuild") {
			h.mu.Lock()
			defer h.mu.Unlock()
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(h.Close)
	return h
}

func TestADrainWaitsUntilNothingRunsThere(t *testing.T) {
	t.Parallel()
	h := openHouse(t)
	h.slipway(t, "admin", "nodes", "drain", "n1", "--wait=false").want(t, 0, "draining  2")
	h.slipway(t, "admin", "nodes", "drain", "n1").want(t, 0, "draining  0", "2 instances left on n1", "1 instances left on n1")
	h.slipway(t, "admin", "nodes", "uncordon", "n1", "--json").want(t, 0, `{"node":{"node_id":"n1"`)
	h.slipway(t, "admin", "nodes", "list").want(t, 0, "512 of 1024")
	h.slipway(t, "admin", "nodes", "drain", "n2").want(t, 4, "", "Node not found")
	h.slipway(t, "admin", "nodes", "drain").want(t, 2, "")
}

func TestARebuildShowsHowFarItIsAndWhatCameOfIt(t *testing.T) {
	t.Parallel()
	h := openHouse(t)
	h.slipway(t, "admin", "rebuild", "deployments").want(t, 0, "100 events made 30 rows in 1.2 s.\nOld and new rows were the same, byte for byte", "built up to event 40 of 100")
	h.slipway(t, "admin", "rebuild", "deployments", "--json").want(t, 0, `"identical":true,"differences":[],"seconds":1.25,"swapped":true}`)
	h.differ = true
	h.slipway(t, "admin", "rebuild", "deployments").want(t, 1, `differs: deployments id="x": only in the live rows`, "were left as they are", "--accept-differences")
	h.slipway(t, "admin", "rebuild", "deployments", "--json").want(t, 1, `"swapped":false`, `"exit_code":1`)
	h.slipway(t, "admin", "rebuild", "deployments", "--accept-differences").want(t, 0, "in place of those that differed")
	h.slipway(t, "admin", "rebuild").want(t, 2, "")
}

func TestDeadLettersAreShownReplayedAndDropped(t *testing.T) {
	t.Parallel()
	h := openHouse(t)
	h.slipway(t, "admin", "dead-letters", "list").want(t, 0, "deployments-9  ContainerExited  evt.acme.deployment.d.ContainerExited")
	h.slipway(t, "admin", "dead-letters", "list", "--json").want(t, 0, `{"dead_letters":[{"id":"deployments-7"`)
	shown := h.slipway(t, "admin", "dead-letters", "show", "deployments-7")
	shown.want(t, 0, "\"exit_code\": 1\n}")
	if strings.Contains(shown.out, "\x1b") {
		t.Error("what an event says steers the terminal")
	}
	h.slipway(t, "admin", "dead-letters", "show", "deployments-8").want(t, 4, "", "There is no dead letter")
	h.slipway(t, "admin", "dead-letters", "replay", "deployments-9").want(t, 1, "", "The dead letter stays")
	h.slipway(t, "admin", "dead-letters", "replay").want(t, 2, "", "--all")
	h.slipway(t, "admin", "dead-letters", "replay", "--all").want(t, 1, "Replayed deployments-7", "deployments-9: The dead letter stays", "1 of 2 dead letters failed again")
	h.slipway(t, "admin", "dead-letters", "drop", "deployments-9").want(t, 2, "", "--yes")
	h.slipway(t, "admin", "dead-letters", "drop", "deployments-9", "--yes").want(t, 0, "its event stays in the log")
	h.slipway(t, "admin", "dead-letters", "list").want(t, 0, "There are no dead letters.")
	h.slipway(t, "admin", "dead-letters", "list", "--json").want(t, 0, `{"dead_letters":[]}`)
}

func TestARotationSaysWhatWrapsTheKeysNow(t *testing.T) {
	t.Parallel()
	h := openHouse(t)
	h.slipway(t, "admin", "keys", "rotate").want(t, 0, "3 data keys are wrapped with the master key 0a1b2c3d, 3 of them anew.\nThe master key ffffffff is dropped.", "1 data keys open with no master key")
	h.slipway(t, "admin", "keys", "rotate", "--json").want(t, 0, `{"key":"0a1b2c3d","resumed":false,"data_keys":4`)
	h.differ = true
	h.slipway(t, "admin", "keys", "rotate").want(t, 0, "An earlier rotation was not finished")
	h.slipway(t, "admin", "keys", "rotate", "x").want(t, 2, "")
}
