package domainname_test

import (
	"strings"
	"testing"

	"github.com/slipway-paas/slipway/libs/domainname"
)

var rules = domainname.Rules{Base: "apps.test", Own: []string{"api.example.net"}}

func TestNamesAreNormalized(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"www.example.com":               "www.example.com",
		"WWW.Example.COM.":              "www.example.com",
		"Bücher.example":                "xn--bcher-kva.example",
		"BÜCHER.example":                "xn--bcher-kva.example",
		"xn--bcher-kva.example":         "xn--bcher-kva.example",
		"faß.example":                   "xn--fa-hia.example",
		"www。example。com":               "www.example.com",
		"пример.испытание":              "xn--e1afmkfd.xn--80akhbyknj4f",
		"notapps.test":                  "notapps.test",
		"example.github.io":             "example.github.io",
		"1and1.com":                     "1and1.com",
		strings.Repeat("a.", 126) + "b": strings.Repeat("a.", 126) + "b",
	} {
		if got, faults := rules.Parse(text); got != want || len(faults) > 0 {
			t.Errorf("%q: got %q, %v; wanted %q", text, got, faults, want)
		}
	}
	if got := domainname.Unicode("xn--bcher-kva.example"); got != "bücher.example" {
		t.Errorf("shown as %q", got)
	}
	if got := domainname.Unicode("www.example.com"); got != "www.example.com" {
		t.Errorf("shown as %q", got)
	}
}

func TestAllThatIsWrongIsSaid(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 64)
	for text, want := range map[string][]string{
		"":                         {"required"},
		strings.Repeat("a.", 1000): {"at most 253"},
		"https://www.example.com":  {"name alone"},
		"www.example.com/":         {"name alone"},
		"www.example.com:443":      {"name alone"},
		"not a domain":             {"name alone"},
		"192.0.2.7":                {"not an address"},
		"2001:db8::1":              {"not an address"},
		"127.1":                    {"not an address"},
		"localhost":                {"full domain name"},
		"*.example.com":            {"wildcard"},
		"*.apps.test":              {"wildcard", "below apps.test"},
		"*.co.uk":                  {"wildcard", "suffix"},
		"a..example.com":           {"empty part"},
		".example.com":             {"empty part"},
		"-a.example.com":           {"not a domain name"},
		"a_b.example.com":          {"not a domain name"},
		"xn--a.example.com":        {"not a domain name"},
		"\x00.example.com":         {"not a domain name"},
		"apps.test":                {"below apps.test"},
		"x.Apps.test":              {"below apps.test"},
		"co.uk":                    {"suffix"},
		"github.io":                {"suffix"},
		"API.example.net":          {"platform's own"},
		long + ".example.com":      {"more than 63"},
		long + "." + strings.Repeat("a.", 100) + "example.com": {"more than 63", "at most 253"},
	} {
		_, faults := rules.Parse(text)
		if len(faults) != len(want) {
			t.Errorf("%q: got %q, wanted %q", text, faults, want)
			continue
		}
		for i := range want {
			if !strings.Contains(faults[i], want[i]) {
				t.Errorf("%q: got %q, wanted %q", text, faults, want)
			}
		}
	}
}

// FuzzWhatIsTakenIsAlreadyNormal: a name that passes is its own normal form, ends where
// names end, and can be asked for in DNS.
func FuzzWhatIsTakenIsAlreadyNormal(f *testing.F) {
	for _, s := range []string{"www.example.com", "Bücher.example", "*.x.y", "1.2.3.4", "a..b", "xn--a", "co.uk", "x.apps.test", "faß.de", "\u200d.a", "٠.٠"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ascii, faults := rules.Parse(text)
		if len(faults) > 0 {
			return
		}
		if len(ascii) > domainname.MaxName || strings.Trim(ascii, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" || domainname.Within(ascii, rules.Base) {
			t.Fatalf("%q was taken as %q", text, ascii)
		}
		if again, faults := rules.Parse(ascii); again != ascii || len(faults) > 0 {
			t.Fatalf("%q was taken as %q, which is %q, %v", text, ascii, again, faults)
		}
		domainname.Unicode(ascii)
	})
}
