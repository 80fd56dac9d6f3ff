package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
)

// tokenPrefix lets scanners of leaked secrets know whose token it is.
const tokenPrefix = "slp_"

// newToken makes an access token of 256 random bits and its hash.
func newToken() (token string, hash [sha256.Size]byte) {
	raw := make([]byte, 32)
	// crypto/rand.Read never fails: it ends the program when the system has no randomness.
	_, _ = rand.Read(raw)
	token = tokenPrefix + base64.RawURLEncoding.EncodeToString(raw)
	return token, sha256.Sum256([]byte(token))
}
