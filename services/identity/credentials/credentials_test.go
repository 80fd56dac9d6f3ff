package credentials_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/slipway-paas/slipway/services/identity/credentials"
)

func TestCredentialsAreForTheirOwnerOnlyAndReadAsWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "credentials.json")
	if _, found, err := credentials.Read(path); found || err != nil {
		t.Fatalf("found %v, %v", found, err)
	}
	want := credentials.Credentials{APIURL: "http://127.0.0.1:8080", OperatorID: "o", AccessToken: "t"}
	for range 2 {
		if err := credentials.Write(path, want); err != nil {
			t.Fatal(err)
		}
	}
	got, found, err := credentials.Read(path)
	if err != nil || !found || got != want {
		t.Errorf("got %v, %v, %v", got, found, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
