package identity_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/slipway-paas/slipway/libs/eventstore/memory"
	"github.com/slipway-paas/slipway/services/identity"
)

func TestTheKeeperSeesToItThatThereAreCredentials(t *testing.T) {
	t.Parallel()
	s := make1(t, memory.New())
	run(t, s)
	file := filepath.Join(t.TempDir(), "credentials.json")
	keep := func() (token string) {
		t.Helper()
		k := identity.NewKeeper(s, identity.KeeperConfig{File: file, APIURL: "http://a", AppURL: "http://{subdomain}.b"}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		eventually(t, "the credentials are kept", func() bool { return k.Ready() == nil })
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]string
		if err := json.Unmarshal(text, &got); err != nil || got["api_url"] != "http://a" || got["app_url"] != "http://{subdomain}.b" || got["operator_id"] == "" {
			t.Errorf("the file holds %s", text)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the file's mode is %v, %v", info.Mode(), err)
		}
		return got["access_token"]
	}
	first := keep()
	if again := keep(); again != first {
		t.Error("a second start replaced the token")
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	second := keep()
	if second == first {
		t.Error("a lost file came back with the lost token")
	}
	eventually(t, "the new token holds", func() bool { _, code := ask(t, s, second); return code == 200 })
}
