// Package domainname reads the domain names that users bring: it normalizes those that
// may be served, and says all that is wrong with the others.
package domainname

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

const (
	// maxText bounds what is read at all, in bytes.
	maxText = 1024
	// MaxName and maxLabel are RFC 1035's bounds, 2.3.4, in characters.
	MaxName  = 253
	maxLabel = 63
)

// Rules are what a name must respect beside being one.
type Rules struct {
	// Base is the platform's base domain: names at or below it are given as subdomains.
	Base string
	// Own are hosts that the platform itself answers at.
	Own []string
}

// Parse returns the name in the form that it is kept in: ASCII (IDNA 2008, with UTS 46's
// mapping for what people type), lower case, no final dot. Faults say all that is wrong
// with it, each as what comes after the field's name; none when it is fine.
func (r Rules) Parse(text string) (ascii string, faults []string) {
	if fault := unreadable(text); fault != "" {
		return "", []string{fault}
	}
	rest := strings.TrimSuffix(text, ".")
	if after, wild := strings.CutPrefix(rest, "*."); wild {
		faults = append(faults, "must be one name: add the names below a wildcard one by one")
		rest = after
	}
	ascii, err := idna.Lookup.ToASCII(rest)
	if err == nil {
		// What is made of a text may be none itself.
		var again string
		if again, err = idna.Lookup.ToASCII(ascii); again != ascii {
			err = errors.Join(err, errors.New("not normal"))
		}
	}
	if err != nil || !utf8.ValidString(rest) {
		return "", append(faults, "is not a domain name: write it with letters, digits and hyphens between dots, like www.example.com")
	}
	labels := strings.Split(ascii, ".")
	switch {
	case slices.Contains(labels, ""):
		faults = append(faults, "has an empty part: write it like www.example.com")
	case len(labels) == 1:
		faults = append(faults, "must be a full domain name, like www.example.com")
	case numeric(labels[len(labels)-1]):
		faults = append(faults, "must be a domain name, not an address")
	}
	if slices.ContainsFunc(labels, func(l string) bool { return len(l) > maxLabel }) {
		faults = append(faults, fmt.Sprintf("has a part of more than %d characters", maxLabel))
	}
	if len(ascii) > MaxName {
		faults = append(faults, fmt.Sprintf("has %d characters; at most %d are allowed", len(ascii), MaxName))
	}
	return ascii, append(faults, r.taken(ascii, len(labels))...)
}

// unreadable is why a text cannot be taken for a name at all.
func unreadable(text string) string {
	switch {
	case text == "":
		return "is required: a full domain name, like www.example.com"
	case len(text) > maxText:
		return fmt.Sprintf("has %d characters; at most %d are allowed", len(text), MaxName)
	case strings.ContainsAny(text, "/:@ \t\r\n"):
		if _, err := netip.ParseAddr(text); err != nil {
			return "must be a name alone, without scheme, port, path or spaces, like www.example.com"
		}
		return "must be a domain name, not an address"
	}
	if _, err := netip.ParseAddr(text); err == nil {
		return "must be a domain name, not an address"
	}
	return ""
}

// taken are faults of names that are not one owner's.
func (r Rules) taken(ascii string, labels int) []string {
	var faults []string
	switch {
	case r.Base != "" && Within(ascii, r.Base):
		faults = append(faults, fmt.Sprintf("must not be at or below %s: names there are given as subdomains", r.Base))
	case slices.Contains(r.Own, ascii):
		faults = append(faults, "is the platform's own")
	}
	if suffix, _ := publicsuffix.PublicSuffix(ascii); labels > 1 && suffix == ascii {
		faults = append(faults, "is a suffix under which others register names: name one below it")
	}
	return faults
}

func numeric(label string) bool { return label != "" && strings.Trim(label, "0123456789") == "" }

// Within reports whether name is domain or below it; both are normalized.
func Within(name, domain string) bool {
	return name == domain || strings.HasSuffix(name, "."+domain)
}

// Unicode is the name as people write it. What has no such form is returned as it is.
func Unicode(ascii string) string {
	text, err := idna.Display.ToUnicode(ascii)
	if err != nil {
		return ascii
	}
	return text
}
