package oauthapp_test

import (
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/decider/gwt"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/identity/oauthapp"
)

func register(change ...func(*oauthapp.Register)) oauthapp.Register {
	secret := sha256.Sum256([]byte("the secret"))
	c := oauthapp.Register{
		ClientID: "c1", OrgID: "acme", OperatorID: "op", Name: "Buddo Deploy",
		RedirectURIs: []string{"https://example.com/callback"}, SecretSHA256: secret[:],
		Scopes: []string{"deploy:manage"}, Grantable: []string{"deploy:manage", "deploy:read"},
	}
	for _, f := range change {
		f(&c)
	}
	return c
}

func registered() *identityv1.OAuthAppRegistered {
	secret := sha256.Sum256([]byte("the secret"))
	return &identityv1.OAuthAppRegistered{
		ClientId: "c1", OrgId: "acme", OperatorId: "op", Name: "Buddo Deploy",
		RedirectUris: []string{"https://example.com/callback"}, SecretSha256: secret[:], Scopes: []string{"deploy:manage"},
	}
}

func TestAnAppIsRegisteredOnceAndKnowsItsSecret(t *testing.T) {
	t.Parallel()
	story := gwt.New(t, oauthapp.Decider()).When(register()).Then(registered())
	story.When(register()).ThenError(problem.CodeConflict)
	app := story.State()
	if !app.Confidential() || !app.Authentic("the secret") || app.Authentic("") || app.Authentic("another") {
		t.Error("the app takes the wrong secret")
	}
	if !app.Redirects("https://example.com/callback") || app.Redirects("https://example.com/callback/") || app.Redirects("https://example.com/Callback") {
		t.Error("the redirect is not matched letter for letter")
	}
	public := gwt.New(t, oauthapp.Decider()).Given(&identityv1.OAuthAppRegistered{ClientId: "c2"}).State()
	if public.Confidential() || !public.Authentic("") || public.Authentic("made up") || (oauthapp.State{}).Authentic("") {
		t.Error("a public app has no secret, and nobody is no app")
	}
}

func TestASecretIsRotatedAndAnAppIsDeletedForEver(t *testing.T) {
	t.Parallel()
	next := sha256.Sum256([]byte("the next secret"))
	rotated := &identityv1.OAuthAppSecretRotated{SecretSha256: next[:]}
	story := gwt.New(t, oauthapp.Decider()).Given(registered()).When(oauthapp.RotateSecret{SecretSHA256: next[:]}).Then(rotated)
	if app := story.State(); app.Authentic("the secret") || !app.Authentic("the next secret") {
		t.Error("the former secret is good, or the new one is not")
	}
	story.When(oauthapp.RotateSecret{SecretSHA256: next[:5]}).ThenError(problem.CodeMalformed)
	story.When(oauthapp.Delete{}).Then(&identityv1.OAuthAppDeleted{}).
		When(oauthapp.Delete{}).ThenError(problem.CodeNotFound).
		When(oauthapp.RotateSecret{SecretSHA256: next[:]}).ThenError(problem.CodeNotFound).
		When(register()).ThenError(problem.CodeConflict)
	if app := story.State(); app.Exists() || app.Authentic("the next secret") || app.Authentic("") || app.Redirects("https://example.com/callback") {
		t.Errorf("a deleted app lives on: %+v", app)
	}
	gwt.New(t, oauthapp.Decider()).Given(&identityv1.OAuthAppRegistered{ClientId: "c2"}).
		When(oauthapp.RotateSecret{SecretSHA256: next[:]}).ThenError(problem.CodeInvalidState)
	gwt.New(t, oauthapp.Decider()).When(oauthapp.Delete{}).ThenError(problem.CodeNotFound)
}

func TestWhatCannotBeRegistered(t *testing.T) {
	t.Parallel()
	uri := func(uris ...string) func(*oauthapp.Register) {
		return func(c *oauthapp.Register) { c.RedirectURIs = uris }
	}
	name := func(n string) func(*oauthapp.Register) { return func(c *oauthapp.Register) { c.Name = n } }
	scopes := func(s ...string) func(*oauthapp.Register) { return func(c *oauthapp.Register) { c.Scopes = s } }
	for what, c := range map[string]struct {
		change func(*oauthapp.Register)
		field  string
	}{
		"no name":                     {name(""), "name"},
		"a name of spaces":            {name("   "), "name"},
		"a name with a line break":    {name("Nice\nApp"), "name"},
		"a name that turns around":    {name("evil\u202eppA"), "name"},
		"a name without end":          {name(strings.Repeat("n", 81)), "name"},
		"no redirect":                 {uri(), "redirect_uris"},
		"too many":                    {uri(strings.Split(strings.Repeat("https://a.b/ ", 11), " ")...), "redirect_uris"},
		"one without host":            {uri("https:///callback"), "redirect_uris[0]"},
		"a relative one":              {uri("/callback"), "redirect_uris[0]"},
		"one with a fragment":         {uri("https://a.b/c#d"), "redirect_uris[0]"},
		"one with a user":             {uri("https://example.com@evil.test/"), "redirect_uris[0]"},
		"plain http":                  {uri("http://example.com/"), "redirect_uris[0]"},
		"plain http on a like name":   {uri("http://localhost.evil.test/"), "redirect_uris[0]"},
		"script":                      {uri("javascript:alert(1)"), "redirect_uris[0]"},
		"data":                        {uri("data:text/html,hi"), "redirect_uris[0]"},
		"a header in it":              {uri("https://a.b/\r\nSet-Cookie: x=y"), "redirect_uris[0]"},
		"a backslash":                 {uri(`https://a.b\@evil.test/`), "redirect_uris[0]"},
		"a host like a directive":     {uri("https://a;script-src b/"), "redirect_uris[0]"},
		"another such host":           {uri("https://a;b/"), "redirect_uris[0]"},
		"a wildcard":                  {uri("https://*.a.b/"), "redirect_uris[0]"},
		"the same twice":              {uri("https://a.b/", "https://a.b/"), "redirect_uris[1]"},
		"no scope":                    {scopes(), "scopes"},
		"an unknown scope":            {scopes("everything"), "scopes[0]"},
		"a scope twice":               {scopes("deploy:read", "deploy:read"), "scopes[1]"},
		"a scope that one has not":    {scopes("deploy:manage", "admin"), "scopes[1]"},
		"very many scopes, and wrong": {scopes(strings.Split(strings.Repeat("x ", 99), " ")...), "scopes[0]"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			_, err := oauthapp.Decider().Decide(oauthapp.State{}, register(c.change), gwt.Start())
			var p *problem.Error
			if !errors.As(err, &p) || len(p.Fields) == 0 || p.Fields[0].Field != c.field {
				t.Errorf("got %v, want a fault of %s", err, c.field)
			}
		})
	}
	for _, fine := range []string{"https://example.com", "https://example.com:8443/cb?x=1", "http://127.0.0.1:7777/cb", "http://[::1]/cb", "http://localhost/cb", "com.example.app:/cb"} {
		if _, err := oauthapp.Decider().Decide(oauthapp.State{}, register(uri(fine)), gwt.Start()); err != nil {
			t.Errorf("%s: %v", fine, err)
		}
	}
}
