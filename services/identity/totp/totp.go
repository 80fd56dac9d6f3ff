// Package totp is the second factor: time-based one-time passwords (RFC 6238) of six
// digits, each good for 30 seconds and the step before and after, and recovery codes.
package totp

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"fmt"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"
)

const (
	period = 30
	// skew is how many steps before and after now are taken.
	skew = 1
	// recoveryCodes are given out when the factor is confirmed.
	recoveryCodes = 10
)

func options() totp.ValidateOpts {
	return totp.ValidateOpts{Period: period, Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1}
}

// Generate makes a secret, in base32, and the otpauth URL that shows it as a QR code.
func Generate(account string) (secret, url string, err error) {
	key, err := totp.Generate(totp.GenerateOpts{Issuer: "Slipway", AccountName: account, Period: period, Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1})
	if err != nil {
		return "", "", fmt.Errorf("make a TOTP secret: %w", err)
	}
	return key.Secret(), key.URL(), nil
}

// Code is the secret's code at that time.
func Code(secret string, at time.Time) (string, error) {
	code, err := totp.GenerateCodeCustom(secret, at, options())
	if err != nil {
		return "", fmt.Errorf("compute a TOTP code: %w", err)
	}
	return code, nil
}

// Match returns the time step that the code is of; ok is false for a code that is not
// good now. All steps are compared, each in constant time.
func Match(secret, code string, now time.Time) (step int64, ok bool) {
	code = strings.TrimSpace(code)
	for offset := -skew; offset <= skew; offset++ {
		at := now.Add(time.Duration(offset) * period * time.Second)
		want, err := Code(secret, at)
		if err == nil && subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 {
			step, ok = at.Unix()/period, true
		}
	}
	return step, ok
}

// Recovery makes recovery codes of 80 random bits and their hashes.
func Recovery() (codes []string, hashes [][sha256.Size]byte) {
	for range recoveryCodes {
		var raw [10]byte
		// crypto/rand.Read never fails.
		_, _ = rand.Read(raw[:])
		text := strings.ToLower(base32.StdEncoding.EncodeToString(raw[:]))
		code := text[:4] + "-" + text[4:8] + "-" + text[8:12] + "-" + text[12:]
		codes, hashes = append(codes, code), append(hashes, RecoveryHash(code))
	}
	return codes, hashes
}

// RecoveryHash is what is kept of a recovery code; case, spaces and hyphens do not count.
func RecoveryHash(code string) [sha256.Size]byte {
	return sha256.Sum256([]byte(strings.NewReplacer("-", "", " ", "").Replace(strings.ToLower(code))))
}
