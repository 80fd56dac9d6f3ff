package lock_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/slipway-paas/slipway/services/standalone/internal/lock"
)

func TestASecondDaemonIsToldWhoHasTheDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := lock.Acquire(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock.Acquire(dir); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("got %v", err)
	}
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	next, err := lock.Acquire(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := next.Release(); err != nil {
		t.Error(err)
	}
}
