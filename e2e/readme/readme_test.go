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

// TestTheReadmesCommandsWork runs the page's marked commands, one block after the
// other in one shell, as somebody would who follows it: with the platform's
// binaries, its address and its credentials.
func TestTheReadmesCommandsWork(t *testing.T) {
	root, err := stack.Repository()
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := readme.Blocks(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if len(blocks) == 0 {
		t.Fatalf("README.md has no block marked with %q", readme.Mark)
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
	image, err := s.Push(t.Context(), "demo/app:latest", "one")
	if err != nil {
		t.Fatal(err)
	}
	t.Log("pushed", image)

	var script bytes.Buffer
	script.WriteString("set -euo pipefail\n")
	for _, block := range blocks {
		script.WriteString(s.Local(block.Script))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-x", "-s")
	shell.Stdin = &script
	shell.Dir = root
	shell.Env = append(os.Environ(), "PATH="+filepath.Join(root, "bin")+":"+os.Getenv("PATH"))
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	shell.Cancel = func() error { return syscall.Kill(-shell.Process.Pid, syscall.SIGKILL) }
	shell.WaitDelay = 5 * time.Second
	out, err := shell.CombinedOutput()
	if err != nil {
		t.Fatalf("the README's commands: %v\n%s", err, out)
	}
	t.Logf("%s", out)
}

func TestBlocksAreFoundByTheirMark(t *testing.T) {
	t.Parallel()
	page := filepath.Join(t.TempDir(), "page.md")
	write := func(text string) {
		if err := os.WriteFile(page, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# A\n```sh\nnot this\n```\n" + readme.Mark + " -->\n\n```sh\none\ntwo\n```\ntext\n" + readme.Mark + " -->\n```sh\nthree\n```\n")
	blocks, err := readme.Blocks(page)
	if err != nil {
		t.Fatal(err)
	}
	if len(blocks) != 2 || blocks[0] != (readme.Block{Line: 8, Script: "one\ntwo\n"}) || blocks[1].Script != "three\n" {
		t.Errorf("found %+v", blocks)
	}
	for _, wrong := range []string{readme.Mark + " -->\n", readme.Mark + " -->\ntext\n```sh\n```\n", readme.Mark + " -->\n```sh\n"} {
		write(wrong)
		if _, err := readme.Blocks(page); err == nil || !strings.Contains(err.Error(), "mark") {
			t.Errorf("%q: got %v", wrong, err)
		}
	}
}
