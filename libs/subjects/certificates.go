package subjects

import (
	"fmt"
	"strconv"
	"strings"
)

// CertificateKey is the CERTIFICATES and CERTIFICATE_LOCKS key of a path of Caddy's
// storage, such as certificates/ca.example/shop.example/shop.example.crt: a token for
// each part, so that what is below a path can be asked for. What a token may not hold is
// written =XX, in hexadecimal.
func CertificateKey(path string) string {
	var key strings.Builder
	key.Grow(len(path) + 16)
	for i, part := range strings.Split(path, "/") {
		if i > 0 {
			key.WriteByte('.')
		}
		if part == "" {
			key.WriteByte('=')
		}
		for j := range len(part) {
			if c := part[j]; plain(c) {
				key.WriteByte(c)
			} else {
				fmt.Fprintf(&key, "=%02X", c)
			}
		}
	}
	return key.String()
}

// CertificatesBelow matches the keys of all paths below that one; of all paths, when it
// is empty.
func CertificatesBelow(path string) string {
	if path == "" {
		return ">"
	}
	return CertificateKey(path) + ".>"
}

// ParseCertificateKey is the path that CertificateKey made the key of.
func ParseCertificateKey(key string) (path string, err error) {
	parts := strings.Split(key, ".")
	for i, token := range parts {
		if parts[i], err = parsePart(token); err != nil {
			return "", fmt.Errorf("%q is no certificate's key: %w", key, err)
		}
	}
	if path = strings.Join(parts, "/"); CertificateKey(path) != key {
		return "", fmt.Errorf("%q is no certificate's key: %w", key, ErrInvalid)
	}
	return path, nil
}

func parsePart(token string) (string, error) {
	if token == "=" {
		return "", nil
	}
	var part strings.Builder
	for i := 0; i < len(token); i++ {
		if token[i] != '=' {
			part.WriteByte(token[i])
			continue
		}
		if i+2 >= len(token) {
			return "", ErrInvalid
		}
		c, err := strconv.ParseUint(token[i+1:i+3], 16, 8)
		if err != nil {
			return "", ErrInvalid
		}
		part.WriteByte(byte(c))
		i += 2
	}
	return part.String(), nil
}

func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}
