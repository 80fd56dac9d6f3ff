package credential_test

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/identity/credential"
)

var (
	now    = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	issuer = subjects.Of("acme", subjects.APIKey, "k1")
	other  = subjects.Of("acme", subjects.APIKey, "k2")
)

func with(text string, expires time.Time) credential.Credential {
	return credential.Credential{Hash: sha256.Sum256([]byte(text)), Operator: text, Expires: expires}
}

func has(b *credential.Book, text string) bool {
	hash := sha256.Sum256([]byte(text))
	c, _, found := b.Find(hash[:])
	return found && c.Operator == text
}

func TestAnIssuerReplacesItsOwnCredentialsOnly(t *testing.T) {
	t.Parallel()
	b := credential.NewBook()
	b.Set(issuer, []credential.Credential{with("a", time.Time{}), with("b", time.Time{}), {Operator: "without a hash"}})
	b.Set(other, []credential.Credential{with("c", time.Time{})})
	b.Set(issuer, []credential.Credential{with("b", time.Time{}), with("d", time.Time{})})
	for text, want := range map[string]bool{"a": false, "b": true, "c": true, "d": true, "e": false} {
		if has(b, text) != want {
			t.Errorf("%s: found %v", text, !want)
		}
	}
	b.Set(issuer, nil)
	if b.Len() != 1 || has(b, "b") || !has(b, "c") {
		t.Errorf("%d credentials", b.Len())
	}
	for _, wrong := range [][]byte{nil, {}, make([]byte, 32), make([]byte, 31)} {
		if _, _, found := b.Find(wrong); found {
			t.Errorf("%x is found", wrong)
		}
	}
}

// Hashes that begin alike share a place and nothing else.
func TestHashesThatBeginAlikeAreToldApart(t *testing.T) {
	t.Parallel()
	b := credential.NewBook()
	first := with("a", time.Time{})
	second := first
	second.Hash[31]++
	second.Operator = "b"
	b.Set(issuer, []credential.Credential{first})
	b.Set(other, []credential.Credential{second})
	b.Set(issuer, nil)
	if _, _, found := b.Find(first.Hash[:]); found {
		t.Error("the first is found")
	}
	if c, by, found := b.Find(second.Hash[:]); !found || c.Operator != "b" || by != other {
		t.Error("the second is not found")
	}
}

func TestWhatHasEndedIsSweptOut(t *testing.T) {
	t.Parallel()
	b := credential.NewBook()
	b.Set(issuer, []credential.Credential{with("soon", now.Add(time.Second)), with("never", time.Time{})})
	b.Set(other, []credential.Credential{with("also soon", now.Add(time.Second))})
	if done := b.Sweep(now); len(done) != 0 || b.Len() != 3 {
		t.Errorf("too early: %v, %d left", done, b.Len())
	}
	if done := b.Sweep(now.Add(time.Second)); len(done) != 1 || done[0] != other || b.Len() != 1 || !has(b, "never") {
		t.Errorf("at the end: %v, %d left", done, b.Len())
	}
}
