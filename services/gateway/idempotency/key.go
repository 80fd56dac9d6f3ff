package idempotency

import (
	"strings"

	"github.com/dunglas/httpsfv"

	"github.com/slipway-paas/slipway/libs/problem"
)

// Header is the name of the request's field.
const Header = "Idempotency-Key"

// maxKey bounds a key, in bytes.
const maxKey = 255

// ParseKey reads the values of the header: one structured string (RFC 9651), as
// draft-ietf-httpapi-idempotency-key-header-07 has it, or the same without quotes, as
// most clients send it. Errors are *problem.Error: 400.
func ParseKey(values []string) (string, error) {
	refused := problem.Malformed(`The Idempotency-Key is not usable; send one, of 1 to 255 visible ASCII characters, such as Idempotency-Key: "8e03978e-40d5-43dd-bc93-6894a57f9324".`)
	if len(values) != 1 || len(values[0]) > 2*maxKey+2 {
		return "", refused
	}
	key := strings.Trim(values[0], " \t")
	if strings.HasPrefix(key, `"`) {
		item, err := httpsfv.UnmarshalItem([]string{key})
		if err != nil || item.Params != nil && len(item.Params.Names()) > 0 {
			return "", refused
		}
		key, _ = item.Value.(string)
	} else if strings.ContainsAny(key, `",; \`) {
		return "", refused
	}
	if key == "" || len(key) > maxKey {
		return "", refused
	}
	for i := range len(key) {
		if key[i] < ' ' || key[i] > '~' {
			return "", refused
		}
	}
	return key, nil
}
