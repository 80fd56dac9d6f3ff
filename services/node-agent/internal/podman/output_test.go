package podman

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/services/node-agent/runtime"
)

// said is the end of what a container wrote that was told to by env and ended.
func (m *machine) said(t *testing.T, name string, maxBytes int, env map[string]string) runtime.Output {
	t.Helper()
	env["MODE"] = "exit"
	id, err := m.podman.Create(t.Context(), runtime.Spec{Name: name, Image: m.image(t), Env: env, Port: 3000})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.podman.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		c, err := m.podman.Inspect(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if c.State == runtime.StateExited {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not end: %+v", c)
		}
		time.Sleep(5 * time.Millisecond)
	}
	output, err := m.podman.Tail(t.Context(), id, maxBytes)
	if err != nil {
		t.Fatal(err)
	}
	return output
}

func TestWhatAContainerWroteIsToldAsItWasWritten(t *testing.T) {
	t.Parallel()
	m := newMachine(t, true)

	t.Run("a line without its end stays one line", func(t *testing.T) {
		got := m.said(t, "open", 1000, map[string]string{"TEXT": "begun", "FILL": "1", "ERROR": "panic\n"})
		for _, want := range []string{"begun\n", "panic\n"} {
			if !strings.Contains(got.Text, want) || len(got.Text) != len("begun\npanic\n") {
				t.Errorf("%q is no line of %q", want, got.Text)
			}
		}
	})
	t.Run("control characters stay", func(t *testing.T) {
		const text = "a\tb\x01\r\n"
		if got := m.said(t, "control", 1000, map[string]string{"LAST": text}); got.Text != text || got.Cut {
			t.Errorf("%q became %+v", text, got)
		}
	})
	t.Run("the last line is told, however much came before", func(t *testing.T) {
		got := m.said(t, "long", 1000, map[string]string{"TEXT": strings.Repeat("x", 600<<10/10) + "\n", "FILL": "80", "LAST": "the end"})
		if !got.Cut || len(got.Text) != 1000 || !strings.HasSuffix(got.Text, "x\nthe end\n") {
			t.Errorf("it ends in %q (cut %v)", got.Text[max(0, len(got.Text)-50):], got.Cut)
		}
	})
}

func TestALogIsReadFromAWholeRecordOn(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "ctr.log")
	if text, cut, err := readEnd(file, 100); text != "" || cut || err != nil {
		t.Fatalf("a container that wrote nothing yet said %q, %v, %v", text, cut, err)
	}
	var records strings.Builder
	for n := range 10 {
		fmt.Fprintf(&records, "2026-01-01T00:00:00Z stdout P %d\n2026-01-01T00:00:00Z stderr F error %d\n", n, n)
	}
	if err := os.WriteFile(file, []byte(records.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	text, cut, err := readEnd(file, 120)
	if err != nil || !cut || textOf(text) != "error 8\nerror 9\n9\n" {
		t.Fatalf("read %q, %v, %v", textOf(text), cut, err)
	}
	if got := textOf("2026-01-01T00:00:00Z stdout F \n2026-01-01T00:00:00Z std"); got != "\n" {
		t.Fatalf("an empty line and a record that is being written are %q", got)
	}
}
