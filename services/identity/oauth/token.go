package oauth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/identity/device"
	"github.com/slipway-paas/slipway/services/identity/grant"
)

// Prefixes let scanners of leaked secrets know whose they are.
const (
	prefixAccess  = "slp_"
	prefixRefresh = "slr_"
	prefixCode    = "slc_"
	prefixDevice  = "sld_"
	prefixSecret  = "sls_"
)

// maxSecret bounds what is looked at of a code or token, in bytes.
const maxSecret = 512

// newSecret makes 256 random bits.
func newSecret(prefix string) (text string, hash grant.Hash) {
	var raw [32]byte
	// crypto/rand.Read never fails: it ends the program when the system has no randomness.
	_, _ = rand.Read(raw[:])
	return secretOf(prefix, raw)
}

func secretOf(prefix string, raw [32]byte) (text string, hash grant.Hash) {
	text = prefix + base64.RawURLEncoding.EncodeToString(raw[:])
	return text, sha256.Sum256([]byte(text))
}

// newAddressed makes a secret that says whose it is, so that its aggregate is found in
// the log at once, by any process, with no index that would have to be up to date.
func newAddressed(prefix string, a subjects.Aggregate) (text string, hash grant.Hash) {
	text, _ = newSecret(prefix)
	text += "." + a.Org + "." + a.ID
	return text, sha256.Sum256([]byte(text))
}

// addressed reads what newAddressed made.
func addressed(prefix, kind, text string) (subjects.Aggregate, grant.Hash, bool) {
	parts := strings.Split(text, ".")
	if len(text) > maxSecret || len(parts) != 3 || !strings.HasPrefix(text, prefix) {
		return subjects.Aggregate{}, grant.Hash{}, false
	}
	a := subjects.Of(parts[1], kind, parts[2])
	return a, sha256.Sum256([]byte(text)), a.Validate() == nil
}

// userCodeLetters leave out vowels, so that no words come of them, and what looks alike.
const userCodeLetters = "BCDFGHJKLMNPQRSTVWXZ"

// newUserCode makes twice four letters with a hyphen between: 20^8 codes (RFC 8628, section 6.1).
func newUserCode() (text string, hash device.Hash) {
	letters := make([]byte, 0, 8)
	for one := make([]byte, 1); len(letters) < cap(letters); {
		_, _ = rand.Read(one)
		// Bytes above the greatest multiple of the alphabet's length would favour some letters.
		if int(one[0]) < 256-256%len(userCodeLetters) {
			letters = append(letters, userCodeLetters[int(one[0])%len(userCodeLetters)])
		}
	}
	text = string(letters[:4]) + "-" + string(letters[4:])
	return text, hashUserCode(text)
}

// hashUserCode takes a code as people type it.
func hashUserCode(typed string) device.Hash {
	kept := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z':
			return r
		case r == '-' || r == ' ':
			return -1
		}
		return '?'
	}, typed[:min(len(typed), 32)])
	return sha256.Sum256([]byte(kept))
}
