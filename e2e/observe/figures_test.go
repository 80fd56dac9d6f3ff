package observe

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/e2e/stack"
)

func TestAPlatformThatNobodyTracesCanBeWatched(t *testing.T) {
	t.Parallel()
	// Switched off in the standard way although an endpoint is there: what would leave
	// the process would be seen.
	r := receiver(t)
	s := platform(t, stack.Standalone, append(r.Env(), "OTEL_TRACES_EXPORTER=none")...)
	a := deploy(t, s, "watched")
	a.wait("running")
	a.ask(http.StatusOK, http.MethodPost, a.path("/stop"), nil)
	a.wait("stopped")
	a.ask(http.StatusUnprocessableEntity, http.MethodPost, a.path("/stop"), nil)
	if _, err := client.Visit(t.Context(), s.API, "made-up.example", http.MethodGet, "/made-up", nil); err != nil {
		t.Fatal(err)
	}

	t.Run("nothing is exported", func(t *testing.T) {
		if n := r.Exports(); n != 0 {
			t.Errorf("spans were exported %d times", n)
		}
	})
	t.Run("the log can be grepped by trace all the same", func(t *testing.T) {
		var trace string
		for line := range strings.Lines(logs(t, s)) {
			var fields struct {
				Message string `json:"msg"`
				Command string `json:"command"`
				Trace   string `json:"trace_id"`
			}
			if json.Unmarshal([]byte(line), &fields) == nil && fields.Message == "command taken" && fields.Command == "Create" {
				trace = fields.Trace
			}
		}
		if trace == "" {
			t.Fatal("no line says that the command was taken, with a trace's id")
		}
		linesOf(t, s, trace, a.id, "command taken", "decided", "started an instance", "an instance changed its health")
	})
	t.Run("both listeners answer with what was done", func(t *testing.T) {
		for _, address := range []string{s.Ops, s.API} {
			scraped := scrape(t, address)
			for series, want := range map[string]string{
				`slipway_scheduler_deployments{status="stopped"}`:                                   "1",
				`slipway_scheduler_deployments{status="running"}`:                                   "0",
				`slipway_scheduler_commands_total{command="Create",outcome="ok"}`:                   "1",
				`slipway_scheduler_commands_total{command="Stop",outcome="ok"}`:                     "1",
				`slipway_scheduler_commands_total{command="Stop",outcome="refused"}`:                "1",
				`slipway_scheduler_rollout_seconds_count{kind="first",result="running"}`:            "1",
				`slipway_health_changes_total{to="healthy"}`:                                        "1",
				`slipway_eventstore_skipped_total`:                                                  "0",
				`slipway_projection_dead_letters_total{projection="deployments"}`:                   "0",
				`slipway_proxyconfig_edges`:                                                         "1",
				`slipway_gateway_request_seconds_count{route="POST /api/deploy/apps",status="201"}`: "1",
			} {
				if got := scraped[series]; got != want {
					t.Errorf("%s: %s is %q, want %s", address, series, got, want)
				}
			}
			for series := range scraped {
				if strings.Contains(series, "made-up") {
					t.Errorf("a client has made the series %s", series)
				}
				if strings.Contains(series, a.id) || strings.Contains(series, "watched") {
					t.Errorf("the series %s is of one deployment: their number has no bound", series)
				}
			}
		}
	})
	t.Run("the rows catch up with the log", func(t *testing.T) {
		eventually(t, "no lag", func(context.Context) (bool, string, error) {
			got := scrape(t, s.Ops)[`slipway_projection_lag{projection="deployments"}`]
			return got == "0", got, nil
		})
	})
	t.Run("the dashboard shows only what there is", func(t *testing.T) {
		there := map[string]bool{}
		for series := range scrape(t, s.Ops) {
			name, _, _ := strings.Cut(series, "{")
			there[name] = true
		}
		asked := dashboard(t)
		for _, name := range asked {
			if !there[name] {
				t.Errorf("the dashboard asks for %s, which is not at /metrics", name)
			}
		}
		if len(asked) < 15 {
			t.Errorf("the dashboard asks for %d figures only: %v", len(asked), asked)
		}
	})
}

// scrape is /metrics by series.
func scrape(t *testing.T, address string) map[string]string {
	t.Helper()
	answer, err := (&client.Client{API: address}).Do(t.Context(), http.MethodGet, "/metrics", nil)
	if err != nil || answer.Status != http.StatusOK {
		t.Fatalf("GET %s/metrics: %s %v", address, answer, err)
	}
	scraped := map[string]string{}
	for line := range strings.Lines(string(answer.Body)) {
		line = strings.TrimSpace(line)
		if i := strings.LastIndexByte(line, ' '); i > 0 && !strings.HasPrefix(line, "#") {
			scraped[line[:i]] = line[i+1:]
		}
	}
	return scraped
}

var metricName = regexp.MustCompile(`\b(slipway|go|process)_[a-z0-9_]+`)

// dashboard returns the names of all figures that the dashboard's queries ask for.
func dashboard(t *testing.T) []string {
	t.Helper()
	root, err := stack.Repository()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(root, "deployments", "dashboards", "slipway.json"))
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string `json:"title"`
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(content, &board); err != nil {
		t.Fatalf("the dashboard is no JSON: %v", err)
	}
	var names []string
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			found := metricName.FindAllString(target.Expr, -1)
			if len(found) == 0 {
				t.Errorf("the panel %q asks %q, which names no figure", panel.Title, target.Expr)
			}
			names = append(names, found...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func TestWithoutTheVariablesNoExporterRuns(t *testing.T) {
	t.Parallel()
	s := platform(t, stack.Standalone)
	if text := logs(t, s); strings.Contains(text, "spans are exported") {
		t.Error("the log says that spans are exported")
	}
	// Where exporters go that were not told otherwise: OTLP's ports.
	for _, port := range []string{"10DD", "10DE"} { // 4317, 4318
		pid := s.Process(stack.Daemon).Pid()
		for _, address := range connections(t, pid) {
			if strings.HasSuffix(address, ":"+port) {
				t.Errorf("the daemon is connected to %s", address)
			}
		}
	}
}

// connections are the remote addresses of a process' TCP sockets, in the kernel's
// notation.
func connections(t *testing.T, pid int) []string {
	t.Helper()
	own := map[string]bool{}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		// A descriptor may be closed meanwhile.
		link, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name()))
		if inode, ok := strings.CutPrefix(link, "socket:["); ok {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	var remote []string
	for _, table := range []string{"tcp", "tcp6"} {
		content, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(content)) {
			if f := strings.Fields(line); len(f) > 9 && own[f[9]] {
				remote = append(remote, f[2])
			}
		}
	}
	if len(remote) == 0 {
		t.Fatal("the process has no TCP socket at all: this looks at the wrong one")
	}
	return remote
}
