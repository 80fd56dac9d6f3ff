package scenarios

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/e2e/stack"
	"github.com/slipway-paas/slipway/services/domains/dnstest"
)

// domainOf is an app's domain of that name, as the list has it; nil for none.
func domainOf(a *app, name string) map[string]any {
	a.t.Helper()
	for _, d := range expect(a.t, a.c, http.StatusOK, http.MethodGet, a.domains(""), nil).List("domains") {
		if d["domain"] == name {
			return d
		}
	}
	return nil
}

func (a *app) domains(more string) string { return "/api/v1/applications/" + a.id + "/domains" + more }

// domainIs waits until a domain has this status and code.
func (a *app) domainIs(name, status, code string) map[string]any {
	a.t.Helper()
	var last map[string]any
	eventually(a.t, fmt.Sprintf("%s is %s %s", name, status, code), func(context.Context) (bool, string, error) {
		last = domainOf(a, name)
		return last["status"] == status && last["code"] == code, fmt.Sprint(last), nil
	})
	return last
}

// answersAs waits until the edge answers this status for another of the app's hosts.
func (a *app) answersAs(host string, status int) client.Answer {
	a.t.Helper()
	other := *a
	other.host = host
	return other.page(status)
}

// record is the value of the first DNS record of that type that a domain needs.
func dnsRecord(t *testing.T, d map[string]any, kind string) (value string) {
	t.Helper()
	records, _ := d["records"].([]any)
	for _, r := range records {
		if r, _ := r.(map[string]any); r["type"] == kind {
			value, _ = r["value"].(string)
			return value
		}
	}
	t.Fatalf("no %s record in %v", kind, d)
	return ""
}

func add(a *app, name string, primary bool) map[string]any {
	a.t.Helper()
	return expect(a.t, a.c, http.StatusCreated, http.MethodPost, a.domains(""), map[string]any{"domain": name, "is_primary": primary}).Object("domain")
}

// TestACustomDomainFromItsRecordToItsEnd is the whole life of a domain, with a DNS server
// of the test's own.
func TestACustomDomainFromItsRecordToItsEnd(t *testing.T) {
	t.Parallel()
	dns := dnstest.Start(t)
	for how, start := range map[string]func(context.Context, stack.Options) (*stack.Stack, error){"standalone": stack.Standalone, "processes": stack.Processes} {
		t.Run(how, func(t *testing.T) {
			s := own(t, start, stack.Options{Resolver: dns.Address})
			zone := strings.ToLower(rand.Text()[:8]) + ".test"
			asked, later := "www."+zone, "bücher."+zone
			ascii := "xn--bcher-kva." + zone
			a := deploy(t, s, map[string]any{"image": push(t, s, "latest", "one"), "port": 8080, "tier": "btc-pro", "custom_domain": asked})

			// What it is asked for with waits for its DNS, and is served by nobody.
			d := a.domainIs(asked, "pending", "not_found")
			if d["is_primary"] != true || d["ssl_active"] != false || d["application_id"] != a.id || d["next_check_at"] == nil || a.get()["custom_domain"] != asked {
				t.Errorf("asked for as %v", d)
			}
			if keys := []string{"id", "application_id", "domain", "is_primary", "ssl_active", "created_at"}; slices.ContainsFunc(keys, func(k string) bool { return d[k] == nil }) {
				t.Errorf("%v lacks one of %v", d, keys)
			}
			a.answersAs(asked, http.StatusNotFound)
			dns.Set(t, asked, "CNAME "+dnsRecord(t, d, "CNAME")+".")
			a.domainIs(asked, "verified", "")
			if got := a.answersAs(asked, http.StatusOK).JSON()["version"]; got != "one" {
				t.Errorf("%s serves %v", asked, got)
			}
			a.serves("one")

			// One that is added later, in letters of its own, and verified when asked.
			d = add(a, later, false)
			if d["domain"] != ascii || d["domain_unicode"] != later || d["status"] != "pending" || d["is_primary"] != false {
				t.Errorf("added as %v", d)
			}
			dns.Set(t, ascii, "A 203.0.113.9")
			verify := expect(t, a.c, http.StatusOK, http.MethodPost, a.domains("/"+url.PathEscape(later)+"/verify"), nil).JSON()
			if message, _ := verify["message"].(string); verify["success"] != false || !strings.Contains(message, "203.0.113.9") {
				t.Errorf("verify says %v", verify)
			}
			a.domainIs(ascii, "pending", "resolves_elsewhere")
			dns.Set(t, ascii, "CNAME "+s.Host(a.subdomain)+".")
			verify = expect(t, a.c, http.StatusOK, http.MethodPost, a.domains("/"+ascii+"/verify"), nil).JSON()
			if verify["success"] != true || verify["message"] != "Domain verified successfully" {
				t.Errorf("verify says %v", verify)
			}
			a.answersAs(ascii, http.StatusOK)
			if answer := expect(t, a.c, http.StatusNoContent, http.MethodPost, a.domains("/"+ascii+"/primary"), nil); len(answer.Body) != 0 {
				t.Errorf("primary answers %s", answer)
			}
			if domainOf(a, ascii)["is_primary"] != true || domainOf(a, asked)["is_primary"] != false || a.get()["custom_domain"] != ascii {
				t.Errorf("primary are %v and %v, the app's is %v", domainOf(a, ascii), domainOf(a, asked), a.get()["custom_domain"])
			}

			// A restart keeps both on the air; the end of one leaves the other.
			a.do("restart")
			a.wait("running")
			a.answersAs(asked, http.StatusOK)
			if answer := expect(t, a.c, http.StatusNoContent, http.MethodDelete, a.domains("/"+ascii), nil); len(answer.Body) != 0 {
				t.Errorf("delete answers %s", answer)
			}
			a.answersAs(ascii, http.StatusNotFound)
			expect(t, a.c, http.StatusNotFound, http.MethodDelete, a.domains("/"+ascii), nil)
			a.answersAs(asked, http.StatusOK)
			a.destroy()
			a.answersAs(asked, http.StatusNotFound)
			expect(t, a.c, http.StatusNotFound, http.MethodGet, a.domains(""), nil)
		})
	}
}

func TestADomainGoesToTheOrganizationThatProvesIt(t *testing.T) {
	t.Parallel()
	dns := dnstest.Start(t)
	s := own(t, stack.Standalone, stack.Options{Resolver: dns.Address})
	host := "www." + strings.ToLower(rand.Text()[:8]) + ".test"
	image := push(t, s, "latest", "one")
	first := deploy(t, s, map[string]any{"image": image, "port": 8080, "tier": "btc-pro"})
	add(first, host, true)
	dns.Set(t, host, "CNAME "+s.Host(first.subdomain)+".")
	first.domainIs(host, "verified", "")
	first.answersAs(host, http.StatusOK)

	// The same organization has it once, and another cannot have it at create.
	twice := create(t, s, map[string]any{"subdomain": name(t, "twice"), "image": image, "port": 8080, "tier": "btc-pro"})
	refused := expect(t, twice.c, http.StatusUnprocessableEntity, http.MethodPost, twice.domains(""), map[string]any{"domain": host})
	if isProblem(t, refused); !strings.Contains(refused.String(), first.subdomain) {
		t.Errorf("refused with %s", refused)
	}
	other := another(t, s, "other-"+strings.ToLower(rand.Text()[:8]), "deploy:manage")
	body := map[string]any{"subdomain": name(t, "other"), "image": image, "port": 8080, "tier": "btc-pro", "custom_domain": host}
	if refused := expect(t, other, http.StatusUnprocessableEntity, http.MethodPost, "/api/deploy/apps", body); !strings.Contains(refused.String(), "custom_domain") {
		t.Errorf("refused with %s", refused)
	}
	delete(body, "custom_domain")
	id, _ := expect(t, other, http.StatusCreated, http.MethodPost, "/api/deploy/apps", body).Object("deployment")["id"].(string)
	second := &app{t: t, s: s, c: other, id: id, subdomain: name(t, "other"), host: s.Host(name(t, "other"))}
	second.wait("running")

	d := add(second, host, false)
	dns.Set(t, host, "CNAME "+second.host+".")
	second.domainIs(host, "pending", "proof_missing")
	first.answersAs(host, http.StatusOK)
	dns.Set(t, "_slipway."+host, fmt.Sprintf("TXT %q", dnsRecord(t, d, "TXT")))
	expect(t, other, http.StatusOK, http.MethodPost, second.domains("/"+host+"/verify"), nil)
	second.domainIs(host, "verified", "")
	if left := domainOf(first, host); left != nil {
		t.Errorf("the former owner still has %v", left)
	}
	// The app behind it is the other one's from now on: stopped, the name is too.
	second.answersAs(host, http.StatusOK)
	first.destroy()
	second.answersAs(host, http.StatusOK)
	expect(t, other, http.StatusOK, http.MethodDelete, "/api/deploy/apps/"+id, nil)
	second.answersAs(host, http.StatusNotFound)
}
