package seal_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"github.com/slipway-paas/slipway/libs/seal"
)

func TestABoxOpensWhatItSealedAndOnlyThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	keys, err := seal.Master(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	box := seal.NewBox(keys)
	secret := []byte("private key")
	sealed, err := box.Seal(secret, "here")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, secret) {
		t.Fatal("it can be read as it lies there")
	}
	if got, err := box.Open(sealed, "here"); err != nil || !bytes.Equal(got, secret) {
		t.Fatalf("opened as %q, %v", got, err)
	}
	if _, err := box.Open(sealed, "there"); !errors.Is(err, seal.ErrUnreadable) {
		t.Fatalf("in another place: %v", err)
	}
	sealed[len(sealed)-1]++
	if _, err := box.Open(sealed, "here"); !errors.Is(err, seal.ErrUnreadable) {
		t.Fatalf("altered: %v", err)
	}
	others, err := seal.Master(filepath.Join(dir, "others"))
	if err != nil {
		t.Fatal(err)
	}
	sealed[len(sealed)-1]--
	if _, err := seal.NewBox(others).Open(sealed, "here"); !errors.Is(err, seal.ErrUnreadable) {
		t.Fatalf("with another key: %v", err)
	}
}
