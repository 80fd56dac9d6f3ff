package gateway_test

import (
	"net/http"
	"strings"
	"testing"
)

func TestAnAppIsScaledByItsNameOrID(t *testing.T) {
	t.Parallel()
	s := begin(t)
	id := s.requested(t)
	for _, name := range []string{"my-app", id} {
		got := s.call(t, "POST", "/api/v1/apps/"+name+"/ps/scale", `{"processes":{"web":3}}`)
		if want := `[{"type":"web","command":"","count":3,"status":"starting"}]` + "\n"; got.status != http.StatusOK || got.body != want {
			t.Errorf("%s: %d %s, want %s", name, got.status, got.body, want)
		}
	}
	if got := s.call(t, "GET", "/api/v1/apps/my-app/ps", ""); got.status != http.StatusOK || !strings.Contains(got.body, `"count":3`) {
		t.Errorf("%d %s", got.status, got.body)
	}
}

func TestAScaleThatMakesNoSenseIsRefused(t *testing.T) {
	t.Parallel()
	s := begin(t)
	s.requested(t)
	for body, want := range map[string]struct {
		status int
		says   string
	}{
		`{"processes":{}}`:                      {422, "say how many of which"},
		`{}`:                                    {422, "say how many of which"},
		`{"processes":{"worker":1}}`:            {422, "processes.worker"},
		`{"processes":{"web":0}}`:               {422, "Stop it."},
		`{"processes":{"web":"many"}}`:          {400, "whole number"},
		`{"processes":{"web":1},"force":1}`:     {400, "Unknown field"},
		``:                                      {400, "empty"},
		`{"processes":{"` + "w\u202e" + `":1}}`: {422, "no such process type"},
	} {
		if got := s.call(t, "POST", "/api/v1/apps/my-app/ps/scale", body); got.status != want.status || !strings.Contains(got.body, want.says) {
			t.Errorf("%s: %d %s", body, got.status, got.body)
		}
	}
	if got := s.call(t, "POST", "/api/v1/apps/nobodys/ps/scale", `{"processes":{"web":1}}`); got.status != 404 {
		t.Errorf("an app that is not there: %d %s", got.status, got.body)
	}
}

func TestAnAppIsRolledBackToARelease(t *testing.T) {
	t.Parallel()
	s := begin(t)
	s.requested(t)
	want := `{"version":3,"image":"ghcr.io/a/b:1","config_version":"v1","status":"superseded","created_at":"2026-05-21T10:00:00.123Z","created_by":"app-1"}`
	for _, body := range []string{"", "{}", `{"version":1}`, `{"version":null}`} {
		if got := s.call(t, "POST", "/api/v1/apps/my-app/rollback", body); got.status != http.StatusOK || strings.TrimSpace(got.body) != want {
			t.Errorf("%q: %d %s", body, got.status, got.body)
		}
	}
	if got := s.call(t, "POST", "/api/v1/apps/my-app/rollback", `{"version":9}`); got.status != 422 || got.json(t)["code"] != "invalid_state" {
		t.Errorf("an unknown release: %d %s", got.status, got.body)
	}
	if got := s.call(t, "GET", "/api/v1/apps/my-app/releases", ""); got.status != http.StatusOK || !strings.HasPrefix(got.body, "["+want+",") {
		t.Errorf("%d %s", got.status, got.body)
	}
}
