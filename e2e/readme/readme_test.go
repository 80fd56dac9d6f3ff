package readme_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/e2e/readme"
	"github.com/slipway-paas/slipway/e2e/stack"
)

// section is what a reader pastes when `make run` says that the platform runs.
const section = "## Try it"

// preamble makes a shell that stops at the first command that fails; curl fails for
// an error status too.
const preamble = `set -euo pipefail
curl() { command curl --fail --silent --show-error --max-time 10 "$@"; }
`

// TestTheReadmesCommandsWork runs the page's commands, one block after the other in
// one shell, against a platform of the test's own: only addresses and the data
// directory are changed.
func TestTheReadmesCommandsWork(t *testing.T) {
	t.Parallel()
	root, err := stack.Repository()
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := readme.Blocks(filepath.Join(root, "README.md"), section)
	if err != nil {
		t.Fatal(err)
	}
	if len(blocks) == 0 {
		t.Fatalf("README.md has no commands below %q", section)
	}
	s, err := stack.Standalone(t.Context(), stack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.Tails())
		}
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	// make run has pushed the sample when it prints the address.
	if _, err := s.Push(t.Context(), "sample:latest", "one"); err != nil {
		t.Fatal(err)
	}

	var script bytes.Buffer
	script.WriteString(preamble)
	for _, block := range blocks {
		script.WriteString(s.Local(block.Script))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-x", "-s")
	shell.Stdin = &script
	shell.Dir = root
	shell.Env = os.Environ()
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	shell.Cancel = func() error { return syscall.Kill(-shell.Process.Pid, syscall.SIGKILL) }
	shell.WaitDelay = 5 * time.Second
	if out, err := shell.CombinedOutput(); err != nil {
		t.Fatalf("the README's commands: %v\n%s", err, out)
	}
}

func TestBlocksAreThoseOfTheSection(t *testing.T) {
	t.Parallel()
	page := filepath.Join(t.TempDir(), "page.md")
	write := func(text string) {
		if err := os.WriteFile(page, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# A\n```sh\nnot this\n```\n## Try it\n```sh\n# one\ntwo\n```\n```\nnor this\n```\n### More\n```sh\nthree\n```\n## B\n```sh\nnor that\n```\n")
	blocks, err := readme.Blocks(page, "## Try it")
	if err != nil {
		t.Fatal(err)
	}
	if len(blocks) != 2 || blocks[0] != (readme.Block{Line: 7, Script: "# one\ntwo\n"}) || blocks[1].Script != "three\n" {
		t.Errorf("found %+v", blocks)
	}
	for text, reason := range map[string]string{"# A\n": "no heading", "## Try it\n```sh\n": "ends within"} {
		write(text)
		if _, err := readme.Blocks(page, "## Try it"); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%q: got %v, want %q", text, err, reason)
		}
	}
}
