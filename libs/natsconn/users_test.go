package natsconn_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/slipway-paas/slipway/libs/natsconn"
)

func TestAServerOfYourOwnLetsEachRoleDoWhatTheEmbeddedOneDoes(t *testing.T) {
	t.Parallel()
	keys, err := natsconn.EnsureKeys(t.TempDir(), "n1")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "users.conf")
	if err := os.WriteFile(file, []byte(keys.Users()), 0o600); err != nil {
		t.Fatal(err)
	}
	options, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatalf("the server does not understand it: %v\n%s", err, keys.Users())
	}
	if len(options.Nkeys) != 4 {
		t.Fatalf("%d users, want platform, node, edge and subscriptions", len(options.Nkeys))
	}
	limited, denied := 0, 0
	for _, user := range options.Nkeys {
		if p := user.Permissions; p != nil {
			limited++
			if len(p.Publish.Allow) == 0 || len(p.Subscribe.Allow) == 0 {
				t.Errorf("%s may do nothing: %+v", user.Nkey, p)
			}
			if len(p.Subscribe.Deny) > 0 {
				denied++
				if _, leaf := user.AllowedConnectionTypes["LEAFNODE"]; !leaf || len(user.AllowedConnectionTypes) != 1 {
					t.Errorf("the server for outsiders may connect as %v", user.AllowedConnectionTypes)
				}
			}
		}
	}
	if denied != 1 {
		t.Errorf("%d users are denied what is no tenant's, want subscriptions", denied)
	}
	if limited != 3 {
		t.Errorf("%d users are limited, want node, edge and subscriptions", limited)
	}
}
