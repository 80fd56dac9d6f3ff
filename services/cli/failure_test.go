package cli_test

import (
	"encoding/json"
	"testing"
)

func TestAnUnknownShellIsRefused(t *testing.T) {
	t.Parallel()
	run(t, nil, "completion", "tcsh").want(t, 2, "", `no completion for the shell "tcsh"`, "bash, fish")
	run(t, nil, "completion", "bash").want(t, 0, "bash completion")
	run(t, nil, "completion").want(t, 0, "Usage:")
}

func TestWithJSONEveryErrorHasACode(t *testing.T) {
	t.Parallel()
	p := open(t)
	nobody := map[string]string{"SLIPWAY_API_URL": "http://127.0.0.1:1", "SLIPWAY_TOKEN": token}
	for code, r := range map[string]result{
		"wrong_usage":  run(t, nil, "deploy", "--colour", "--json"),
		"unreachable":  run(t, nobody, "status", "--json"),
		"unauthorized": run(t, map[string]string{"HOME": t.TempDir()}, "status", "--json"),
		"not_found":    p.slipway(t, "status", "nobody", "--json"),
	} {
		var said struct {
			Error, Code string
			ExitCode    int `json:"exit_code"`
		}
		if err := json.Unmarshal([]byte(r.errors), &said); err != nil {
			t.Errorf("%s: %q is no JSON: %v", code, r.errors, err)
			continue
		}
		if said.Code != code || said.Error == "" || said.ExitCode != r.code || r.code == 0 {
			t.Errorf("want the code %s, got %s", code, r.errors)
		}
	}
	p.status, p.reason = "stopped", "It crashed."
	p.events = append(good()[:3], event(8, "ReleaseFailed", `{"reason":"it crashed"}`))
	p.slipway(t, "deploy", "i", "--subdomain", "hello", "--json").want(t, 5, "", `"code":"deploy_failed"`)
}
