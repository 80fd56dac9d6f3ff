package oauthapp

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/slipway-paas/slipway/libs/access"
	"github.com/slipway-paas/slipway/libs/problem"
)

// Bounds of what can be registered; lengths in bytes, names in characters.
const (
	maxName         = 80
	maxRedirectURIs = 10
	maxRedirectURI  = 512
)

// faults are all that is wrong with what is to be registered.
func faults(c Register) []problem.Field {
	var fields []problem.Field
	add := func(field, message string) {
		fields = append(fields, problem.Field{Field: field, Message: message})
	}
	if message := nameFault(c.Name); message != "" {
		add("name", message)
	}
	switch {
	case len(c.RedirectURIs) == 0:
		add("redirect_uris", "Name at least one address that people are sent back to.")
	case len(c.RedirectURIs) > maxRedirectURIs:
		add("redirect_uris", fmt.Sprintf("Name at most %d addresses.", maxRedirectURIs))
	}
	for i, uri := range c.RedirectURIs[:min(len(c.RedirectURIs), maxRedirectURIs)] {
		if message := redirectFault(uri); message != "" {
			add(fmt.Sprintf("redirect_uris[%d]", i), message)
		} else if slices.Contains(c.RedirectURIs[:i], uri) {
			add(fmt.Sprintf("redirect_uris[%d]", i), "It is named twice; name it once.")
		}
	}
	if len(c.Scopes) == 0 {
		add("scopes", "Name at least one of "+strings.Join(access.Scopes(), ", ")+".")
	}
	for i, s := range c.Scopes[:min(len(c.Scopes), len(access.Scopes())+1)] {
		at := fmt.Sprintf("scopes[%d]", i)
		switch {
		case !access.Known(s):
			add(at, "There is no such scope; use "+strings.Join(access.Scopes(), ", ")+".")
		case slices.Contains(c.Scopes[:i], s):
			add(at, "It is named twice; name it once.")
		case !access.Holds(c.Grantable, s):
			add(at, "You cannot give the scope "+s+" to an app, because you do not have it yourself; leave it out.")
		}
	}
	return fields
}

// nameFault refuses names that a consent page could not show truthfully: what does not
// print, like characters that turn the direction of writing, is not allowed.
func nameFault(name string) string {
	switch {
	case strings.TrimSpace(name) == "":
		return "Give the app a name that people know it by."
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return "Use letters, digits, spaces and signs that can be printed."
	case utf8.RuneCountInString(name) > maxName:
		return fmt.Sprintf("Use at most %d characters.", maxName)
	case strings.TrimSpace(name) != name:
		return "Leave out the spaces around it."
	}
	return ""
}

// redirectFault follows RFC 6749, section 3.1.2, and RFC 8252, section 7.
func redirectFault(uri string) string {
	if uri == "" || len(uri) > maxRedirectURI {
		return fmt.Sprintf("Use an address of 1 to %d characters.", maxRedirectURI)
	}
	if strings.ContainsFunc(uri, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || r == '\\' || r == '"' || r == '<' || r == '>' || r == '*'
	}) {
		return `Use printable ASCII without spaces, backslashes, quotes, angle brackets or asterisks; percent-encode the rest.`
	}
	u, err := url.Parse(uri)
	switch {
	case err != nil || !u.IsAbs():
		return "It is no absolute address; use one like https://example.com/callback."
	case strings.Contains(uri, "#"):
		return "Leave out the fragment (#)."
	case u.User != nil:
		return "Leave out the user and password."
	}
	switch u.Scheme {
	case "https":
		if !plainHost(u) {
			return "Name the host in letters, digits, dots and hyphens, as in https://example.com/callback."
		}
	case "http":
		if !loopback(u.Hostname()) {
			return "Plain http is for this machine alone (127.0.0.1, [::1], localhost); use https."
		}
	default:
		if !strings.Contains(u.Scheme, ".") {
			return "Use https, http on 127.0.0.1, or a scheme of your own with a dot in it, like com.example.app:/callback."
		}
	}
	return ""
}

// plainHost refuses hosts that a browser and a header could read differently.
func plainHost(u *url.URL) bool {
	_, err := netip.ParseAddr(u.Hostname())
	name := u.Hostname()
	return err == nil || name != "" && strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789.-") == ""
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
