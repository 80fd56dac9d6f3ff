package totp_test

import (
	"encoding/base32"
	"strings"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/services/identity/totp"
)

// RFC 6238, appendix B, cut to six digits.
func TestCodesAreThoseOfTheRFC(t *testing.T) {
	t.Parallel()
	secret := base32.StdEncoding.EncodeToString([]byte("12345678901234567890"))
	for at, want := range map[int64]string{59: "287082", 1111111109: "081804", 1234567890: "005924", 2000000000: "279037"} {
		if got, err := totp.Code(secret, time.Unix(at, 0)); got != want || err != nil {
			t.Errorf("at %d: %s, %v, want %s", at, got, err, want)
		}
	}
}

func TestACodeIsGoodForItsStepAndOneOnEachSide(t *testing.T) {
	t.Parallel()
	secret, url, err := totp.Generate("ada@example.com")
	if err != nil || !strings.HasPrefix(url, "otpauth://totp/Slipway:ada@example.com?") {
		t.Fatal(url, err)
	}
	made := time.Unix(3000, 0)
	code, err := totp.Code(secret, made)
	if err != nil {
		t.Fatal(err)
	}
	for later, want := range map[time.Duration]bool{-31 * time.Second: false, -30 * time.Second: true, 0: true, 59 * time.Second: true, 60 * time.Second: false} {
		step, ok := totp.Match(secret, " "+code+" ", made.Add(later))
		if ok != want || ok && step != 100 {
			t.Errorf("%v later: step %d, %v", later, step, ok)
		}
	}
	for _, wrong := range []string{"", "000000", code + "0", "１２３４５６"} {
		if _, ok := totp.Match(secret, wrong, made); ok && wrong != code {
			t.Errorf("%q is taken", wrong)
		}
	}
}

func TestRecoveryCodesAreForPeopleToType(t *testing.T) {
	t.Parallel()
	codes, hashes := totp.Recovery()
	seen := map[string]bool{}
	for i, code := range codes {
		typed := strings.ToUpper(strings.ReplaceAll(code, "-", " "))
		if len(code) != 19 || seen[code] || totp.RecoveryHash(typed) != hashes[i] {
			t.Errorf("code %q", code)
		}
		seen[code] = true
	}
	if len(codes) != 10 {
		t.Errorf("%d codes", len(codes))
	}
}
