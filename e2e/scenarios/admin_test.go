package scenarios

import (
	"net/http"
	"strings"
	"testing"

	"github.com/slipway-paas/slipway/e2e/client"
)

func TestAdminsRebuildTheReadModelWhileAppsComeAndGo(t *testing.T) {
	t.Parallel()
	s := platform(t)
	c := &client.Client{API: s.API, Token: s.Token}
	type rebuilt struct {
		times int
		last  client.Answer
	}
	stop, done := make(chan struct{}), make(chan rebuilt, 1)
	go func() {
		var r rebuilt
		defer func() { done <- r }()
		for {
			answer, err := c.Do(t.Context(), http.MethodPost, "/api/v1/admin/projections/deployments/rebuild", nil)
			r.times++
			if r.last = answer; err != nil || answer.Status != http.StatusOK || answer.JSON()["identical"] != true || answer.JSON()["swapped"] != true {
				return
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	image := push(t, s, "latest", "one")
	for range 2 {
		a := deploy(t, s, map[string]any{"image": image, "port": 8080})
		a.serves("one")
		a.get() // a read sees the write before it, whatever is swapped meanwhile
		a.destroy()
	}
	close(stop)
	r := <-done
	if answer := r.last.JSON(); r.last.Status != http.StatusOK || answer["identical"] != true || answer["swapped"] != true {
		t.Errorf("rebuild %d: %s", r.times, r.last)
	}
	if letters := expect(t, c, http.StatusOK, http.MethodGet, "/api/v1/admin/dead-letters", nil).List("dead_letters"); len(letters) != 0 {
		t.Errorf("there are dead letters: %v", letters)
	}
	if nodes := expect(t, c, http.StatusOK, http.MethodGet, "/api/v1/admin/nodes", nil).List("nodes"); len(nodes) == 0 || nodes[0]["status"] != "ready" {
		t.Errorf("the nodes are %v", nodes)
	}
	expect(t, c, http.StatusNotFound, http.MethodDelete, "/api/v1/admin/dead-letters/deployments-1", nil)
	metrics, err := (&client.Client{API: s.Ops}).Do(t.Context(), http.MethodGet, "/metrics", nil)
	if want := `slipway_projection_dead_letters_waiting{projection="deployments"} 0`; err != nil || !strings.Contains(string(metrics.Body), want) {
		t.Errorf("the metrics lack %s: %v", want, err)
	}
	expect(t, &client.Client{API: s.API}, http.StatusUnauthorized, http.MethodGet, "/api/v1/admin/nodes", nil)
}
