package gateway_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAnAppActsForWhoHasConsented(t *testing.T) {
	t.Parallel()
	s := beginOAuth(t)
	app := s.register(t, true, "deploy:manage", "billing:read")
	if got := s.as(t, "session-alice", http.MethodGet, "/api/oauth/apps/"+app.id); got.status != http.StatusOK || strings.Contains(got.body, app.secret) {
		t.Errorf("the app is shown as %d %s", got.status, got.body)
	}
	b := s.browser(t)
	page := b.consent("alice", "/api/oauth/authorize?"+app.query("scope", "billing:read deploy:manage"))
	for _, want := range []string{"Buddo &lt;b&gt;Deploy", "Create, restart, stop and destroy deployments", "See bills", "client.example", "Acme", "alice@example.com"} {
		if !strings.Contains(page.body, want) {
			t.Errorf("the consent page does not say %q: %s", want, page.body)
		}
	}
	if strings.Contains(page.body, "<script") || strings.Contains(page.body, "Buddo <b>") {
		t.Errorf("the consent page has what others wrote as markup: %s", page.body)
	}
	f := formOf(t, page.body)
	f.values.Set("decision", "allow")
	done := b.submit(f)
	to, err := url.Parse(done.header.Get("Location"))
	if err != nil || done.status != http.StatusSeeOther {
		t.Fatalf("%d %s", done.status, done.body)
	}
	back := to.Query()
	if to.Host != "client.example" || back.Get("from") != "slipway" || back.Get("state") != "the state" || back.Get("iss") != s.url {
		t.Errorf("consent leads to %s", to)
	}
	access, refresh := s.redeem(t, app, back.Get("code")).tokens(t)
	if got := s.as(t, access, http.MethodPost, "/api/deploy/apps", `{"subdomain":"a","image":"i","tier":"t"}`); got.status != http.StatusCreated {
		t.Fatalf("deploying: %d %s", got.status, got.body)
	}
	s.scheduler.set(func(f *fakeScheduler) {
		if p := f.created.GetPrincipal(); p.GetAppId() != app.id || p.GetOperatorId() != "alice" || p.GetOrgId() != "acme" {
			t.Errorf("the scheduler was told that %v deploys", p)
		}
	})
	// The refresh token as JSON, with the secret in the header.
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(app.id+":"+app.secret))
	fresh := s.call(t, http.MethodPost, "/api/oauth/token", `{"grant_type":"refresh_token","refresh_token":"`+refresh+`","scope":"billing:read"}`, "Authorization: "+basic)
	narrow, _ := fresh.tokens(t)
	if got := s.as(t, narrow, http.MethodGet, "/api/deploy/apps"); got.status != http.StatusForbidden || fresh.json(t)["scope"] != "billing:read" {
		t.Errorf("a narrowed token deploys: %d %s", got.status, fresh.body)
	}
	info := s.as(t, access, http.MethodGet, "/api/oauth/token").json(t)
	if info["operator_id"] != "alice" || info["app_id"] != app.id || info["org_id"] != "acme" {
		t.Errorf("the token is described as %v", info)
	}
	seen := s.call(t, http.MethodPost, "/api/oauth/introspect", url.Values{"token": {access}}.Encode(), "Authorization: "+basic, "Content-Type: application/x-www-form-urlencoded").json(t)
	if seen["active"] != true || seen["sub"] != "alice" || seen["scope"] != "deploy:manage billing:read" || seen["client_id"] != app.id {
		t.Errorf("introspection says %v", seen)
	}
	other := s.register(t, true, "deploy:read")
	for _, c := range []struct{ id, secret string }{{other.id, other.secret}, {app.id, app.secret}} {
		body := url.Values{"token": {access}, "client_id": {c.id}, "client_secret": {c.secret}}.Encode()
		if got := s.call(t, http.MethodPost, "/api/oauth/revoke", body, "Authorization", "Content-Type: application/x-www-form-urlencoded"); got.status != http.StatusOK {
			t.Fatalf("revoking: %d %s", got.status, got.body)
		}
		if c.id == other.id && !s.works(t, access) {
			t.Error("another app's revoking ended the token")
		}
	}
	s.ends(t, access)
}

func TestClientsFindTheEndpoints(t *testing.T) {
	t.Parallel()
	s := beginOAuth(t)
	doc := s.call(t, http.MethodGet, "/.well-known/oauth-authorization-server", "", "Authorization").json(t)
	for name, want := range map[string]any{
		"issuer": s.url, "authorization_endpoint": s.url + "/api/oauth/authorize", "token_endpoint": s.url + "/api/oauth/token",
		"device_authorization_endpoint": s.url + "/api/oauth/device/code", "revocation_endpoint": s.url + "/api/oauth/revoke",
	} {
		if doc[name] != want {
			t.Errorf("%s is %v, want %v", name, doc[name], want)
		}
	}
	if methods, _ := doc["code_challenge_methods_supported"].([]any); !slices.Equal(methods, []any{"S256"}) {
		t.Errorf("challenge methods %v", methods)
	}
}

func TestACodeIsRedeemedByItsClientAlone(t *testing.T) {
	t.Parallel()
	s := beginOAuth(t)
	app, other := s.register(t, true, "deploy:manage"), s.register(t, false, "deploy:manage")
	code := s.browser(t).code("alice", app)
	for what, c := range map[string]struct {
		change []string
		status int
		code   string
	}{
		"no verifier":             {[]string{"code_verifier", ""}, 400, "invalid_request"},
		"another verifier":        {[]string{"code_verifier", strings.Repeat("x", 43)}, 400, "invalid_grant"},
		"a verifier too short":    {[]string{"code_verifier", "short"}, 400, "invalid_grant"},
		"no redirect_uri":         {[]string{"redirect_uri", ""}, 400, "invalid_request"},
		"another redirect_uri":    {[]string{"redirect_uri", callback + "/"}, 400, "invalid_grant"},
		"a tampered code":         {[]string{"code", code + "x"}, 400, "invalid_grant"},
		"another org in the code": {[]string{"code", strings.Replace(code, ".acme.", ".other.", 1)}, 400, "invalid_grant"},
		"a path in the code":      {[]string{"code", "slc_x.../../x"}, 400, "invalid_grant"},
		"a wildcard in the code":  {[]string{"code", "slc_x.*.>"}, 400, "invalid_grant"},
		"no secret":               {[]string{"client_secret", ""}, 401, "invalid_client"},
		"a wrong secret":          {[]string{"client_secret", "sls_wrong"}, 401, "invalid_client"},
		"an unknown client":       {[]string{"client_id", "nobody"}, 401, "invalid_client"},
		"another client":          {[]string{"client_id", other.id, "client_secret", ""}, 400, "invalid_grant"},
		"a public one's secret":   {[]string{"client_id", other.id}, 401, "invalid_client"},
		"a grant type of others":  {[]string{"grant_type", "password"}, 400, "unsupported_grant_type"},
		"client credentials":      {[]string{"grant_type", "client_credentials"}, 400, "unauthorized_client"},
		"no grant type":           {[]string{"grant_type", ""}, 400, "invalid_request"},
	} {
		s.redeem(t, app, code, c.change...).refused(t, what, c.status, c.code)
	}
	// All that was no use of the code.
	s.redeem(t, app, code).tokens(t)
}

func TestACodeThatComesTwiceEndsWhatItHasIssued(t *testing.T) {
	t.Parallel()
	s := beginOAuth(t)
	app := s.register(t, false, "deploy:manage")
	code := s.browser(t).code("alice", app)
	access, refresh := s.redeem(t, app, code).tokens(t)
	if !s.works(t, access) {
		t.Fatal("the token does not work")
	}
	s.redeem(t, app, code).refused(t, "the code again", 400, "invalid_grant")
	s.ends(t, access)
	s.refresh(t, app, refresh).refused(t, "its refresh token", 400, "invalid_grant")

	late := s.browser(t).code("alice", app)
	s.later.Store(int64(time.Minute))
	s.redeem(t, app, late).refused(t, "a code after a minute", 400, "invalid_grant")
}

func TestARefreshTokenThatComesTwiceEndsTheFamily(t *testing.T) {
	t.Parallel()
	s := beginOAuth(t)
	app := s.register(t, false, "deploy:manage", "deploy:read")
	_, first := s.redeem(t, app, s.browser(t).code("alice", app, "scope", "deploy:read")).tokens(t)
	s.refresh(t, app, first, "scope", "deploy:read deploy:manage").refused(t, "more than was granted", 400, "invalid_scope")
	s.refresh(t, app, first+"x").refused(t, "a tampered refresh token", 400, "invalid_grant")
	access, second := s.refresh(t, app, first).tokens(t)
	if !s.works(t, access) || second == first {
		t.Fatal("refreshing gave nothing new")
	}
	s.refresh(t, app, first).refused(t, "the first one again", 400, "invalid_grant")
	s.refresh(t, app, second).refused(t, "the second one after that", 400, "invalid_grant")
	s.ends(t, access)
}

func TestADeletedAppEndsWithAllThatItWasGiven(t *testing.T) {
	t.Parallel()
	s := beginOAuth(t)
	app, other := s.register(t, true, "deploy:manage"), s.register(t, true, "deploy:manage")
	access, refresh := s.redeem(t, app, s.browser(t).code("alice", app)).tokens(t)
	kept, _ := s.redeem(t, other, s.browser(t).code("alice", other)).tokens(t)
	path := "/api/oauth/apps/" + app.id
	if got := s.as(t, "session-vera", http.MethodDelete, path); got.status != http.StatusForbidden {
		t.Errorf("a viewer deletes it: %d %s", got.status, got.body)
	}
	if got := s.as(t, "session-alice", http.MethodDelete, path); got.status != http.StatusOK {
		t.Fatalf("delete: %d %s", got.status, got.body)
	}
	s.ends(t, access)
	s.refresh(t, app, refresh).refused(t, "its refresh token", 401, "invalid_client")
	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		if got := s.as(t, "session-alice", method, path); got.status != http.StatusNotFound {
			t.Errorf("%s of a deleted app: %d %s", method, got.status, got.body)
		}
	}
	if got := s.as(t, "session-alice", http.MethodGet, "/api/oauth/apps"); strings.Contains(got.body, app.id) || !strings.Contains(got.body, other.id) {
		t.Errorf("the apps are %s", got.body)
	}
	if got := s.as(t, "session-alice", http.MethodGet, "/api/oauth/grants"); strings.Contains(got.body, app.id) {
		t.Errorf("the grants are %s", got.body)
	}
	if !s.works(t, kept) {
		t.Error("another app's token ended too")
	}
}

func TestARotatedSecretIsTheOnlyOneThatCounts(t *testing.T) {
	t.Parallel()
	s := beginOAuth(t)
	app := s.register(t, true, "deploy:manage")
	_, refresh := s.redeem(t, app, s.browser(t).code("alice", app)).tokens(t)
	got := s.as(t, "session-alice", http.MethodPost, "/api/oauth/apps/"+app.id+"/secret")
	secret, _ := got.json(t)["client_secret"].(string)
	if got.status != http.StatusOK || secret == "" || secret == app.secret {
		t.Fatalf("rotate: %d %s", got.status, got.body)
	}
	s.refresh(t, app, refresh).refused(t, "the former secret", 401, "invalid_client")
	app.secret = secret
	s.refresh(t, app, refresh).tokens(t)
	public := s.register(t, false, "deploy:manage")
	if got := s.as(t, "session-alice", http.MethodPost, "/api/oauth/apps/"+public.id+"/secret"); got.status != http.StatusUnprocessableEntity {
		t.Errorf("a public app's secret: %d %s", got.status, got.body)
	}
}

func TestNobodyIsSentWhereNoAppHasRegistered(t *testing.T) {
	t.Parallel()
	s := beginOAuth(t)
	app := s.register(t, false, "deploy:manage")
	b := s.browser(t)
	b.consent("alice", "/api/oauth/authorize?"+app.query())
	for what, query := range map[string]string{
		"another host":             app.query("redirect_uri", "https://evil.example/callback?from=slipway"),
		"a path below":             app.query("redirect_uri", "https://client.example/callback/../x?from=slipway"),
		"one letter more":          app.query("redirect_uri", callback+"&x=y"),
		"another case":             app.query("redirect_uri", strings.Replace(callback, "callback", "Callback", 1)),
		"encoded once more":        app.query("redirect_uri", url.QueryEscape(callback)),
		"a user before the host":   app.query("redirect_uri", "https://client.example@evil.example/callback?from=slipway"),
		"no redirect":              app.query("redirect_uri", ""),
		"script":                   app.query("redirect_uri", "javascript:alert(1)"),
		"an unknown app":           client{id: "nobody"}.query(),
		"no app":                   app.query("client_id", ""),
		"two redirects":            app.query() + "&redirect_uri=https%3A%2F%2Fevil.example%2F",
		"a header in the redirect": app.query("redirect_uri", callback+"\r\nSet-Cookie: a=b"),
		"a broken query":           app.query() + "&%zz",
	} {
		got := b.get("/api/oauth/authorize?" + query)
		if got.status != http.StatusBadRequest || got.header.Get("Location") != "" || !strings.Contains(got.body, "<h1>") || got.header.Get("Set-Cookie") != "" {
			t.Errorf("%s: %d to %q", what, got.status, got.header.Get("Location"))
		}
	}
	// What is the app's own fault it is told, at the address that it has registered.
	for what, c := range map[string]struct{ query, code string }{
		"plain challenge":        {app.query("code_challenge_method", "plain"), "invalid_request"},
		"no challenge method":    {app.query("code_challenge_method", ""), "invalid_request"},
		"no challenge":           {app.query("code_challenge", ""), "invalid_request"},
		"half a challenge":       {app.query("code_challenge", "abc"), "invalid_request"},
		"an implicit flow":       {app.query("response_type", "token"), "unsupported_response_type"},
		"a fragment answer":      {app.query("response_mode", "fragment"), "invalid_request"},
		"an unregistered scope":  {app.query("scope", "deploy:manage admin"), "invalid_scope"},
		"no scope":               {app.query("scope", ""), "invalid_scope"},
		"no page to be shown":    {app.query("prompt", "none"), "interaction_required"},
		"a request object":       {app.query("request", "eyJ"), "request_not_supported"},
		"a request from outside": {app.query("request_uri", "https://evil.example/"), "request_not_supported"},
	} {
		got := b.get("/api/oauth/authorize?" + c.query)
		to, err := url.Parse(got.header.Get("Location"))
		if err != nil || got.status != http.StatusSeeOther || to.Host != "client.example" || to.Query().Get("error") != c.code || to.Query().Get("state") != "the state" {
			t.Errorf("%s: %d to %q, want %s", what, got.status, got.header.Get("Location"), c.code)
		}
	}
	// A state is given back as it came and adds no header.
	got := b.get("/api/oauth/authorize?" + app.query("prompt", "none", "state", "x\r\nSet-Cookie: a=b"))
	if to, err := url.Parse(got.header.Get("Location")); err != nil || to.Query().Get("state") != "x\r\nSet-Cookie: a=b" || got.header.Get("Set-Cookie") != "" {
		t.Errorf("the state came back in %v", got.header)
	}
}

func TestConsentIsGivenOnThePageAlone(t *testing.T) {
	t.Parallel()
	s := beginOAuth(t)
	app := s.register(t, false, "deploy:manage")
	path := "/api/oauth/authorize?" + app.query()
	alice, vera := s.browser(t), s.browser(t)
	page := alice.consent("alice", path)
	for name, want := range map[string]string{"X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
		if got := page.header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got, want := page.header.Get("Content-Security-Policy"), "default-src 'none'; style-src 'self'; form-action 'self' https://client.example; base-uri 'none'; frame-ancestors 'none'"; got != want {
		t.Errorf("the policy is %q", got)
	}
	allow := func(change func(f form)) form {
		f := formOf(t, page.body)
		f.values.Set("decision", "allow")
		if change != nil {
			change(f)
		}
		return f
	}
	wider := s.register(t, false, "deploy:manage", "apps:write")
	for what, c := range map[string]struct {
		who     *browser
		form    form
		headers []string
		status  int
	}{
		"no token":                  {alice, allow(func(f form) { f.values.Del("token") }), nil, 403},
		"a made up token":           {alice, allow(func(f form) { f.values.Set("token", "x") }), nil, 403},
		"a form from another site":  {alice, allow(nil), []string{"Origin: https://evil.example", "Sec-Fetch-Site: cross-site"}, 403},
		"a form from an old one":    {alice, allow(nil), []string{"Origin: https://evil.example", "Sec-Fetch-Site: "}, 403},
		"another request in it":     {alice, allow(func(f form) { f.values.Set("request", wider.query("scope", "deploy:manage apps:write")) }), nil, 403},
		"somebody else's browser":   {vera, allow(nil), nil, 403},
		"a browser without session": {s.browser(t), allow(nil), nil, 401},
		"an org of others":          {alice, allow(func(f form) { f.values.Set("org", "other") }), nil, 403},
	} {
		if c.who == vera {
			vera.consent("vera", path)
		}
		got := c.who.submit(c.form, c.headers...)
		if got.status != c.status || got.header.Get("Location") != "" {
			t.Errorf("%s: %d to %q, want %d", what, got.status, got.header.Get("Location"), c.status)
		}
	}
	if got := alice.get("/api/oauth/authorize?" + app.query() + "&decision=allow&token=" + allow(nil).values.Get("token")); got.status != http.StatusOK || got.header.Get("Location") != "" {
		t.Errorf("a link has consented: %d", got.status)
	}
	refuse := allow(func(f form) { f.values.Set("decision", "deny") })
	if got := alice.submit(refuse); !strings.Contains(got.header.Get("Location"), "error=access_denied") {
		t.Errorf("refusing leads to %q", got.header.Get("Location"))
	}
	if grants := s.as(t, "session-alice", http.MethodGet, "/api/oauth/grants").json(t)["grants"].([]any); len(grants) != 0 {
		t.Errorf("something was granted: %v", grants)
	}
}

func TestSigningInLeadsBackAndNowhereElse(t *testing.T) {
	t.Parallel()
	s := beginOAuth(t)
	path := "/api/oauth/authorize?" + s.register(t, false, "deploy:manage").query()
	b := s.browser(t)
	page := b.get(path)
	for _, next := range []string{"https://evil.example/", "//evil.example/api/oauth/authorize", "/api/oauth/authorize\r\nSet-Cookie: a=b", `/\evil.example`, "/api/deploy/apps", ""} {
		f := formOf(t, page.body)
		f.values.Set("email", "alice@example.com")
		f.values.Set("password", "password of alice")
		f.values.Set("next", next)
		if got := b.submit(f); got.status < 400 || got.header.Get("Location") != "" || len(got.header.Values("Set-Cookie")) != 0 {
			t.Errorf("next %q: %d to %q", next, got.status, got.header.Get("Location"))
		}
	}
	f := formOf(t, page.body)
	f.values.Set("email", "alice@example.com")
	f.values.Set("password", "wrong")
	if got := b.submit(f); got.status != http.StatusUnauthorized || !strings.Contains(got.body, `role="alert"`) || !strings.Contains(got.body, "alice@example.com") {
		t.Errorf("a wrong password: %d %s", got.status, got.body)
	}
	f.values.Set("password", "password of alice")
	if got := s.browser(t).submit(f); got.status != http.StatusForbidden {
		t.Errorf("a sign-in form in another browser: %d", got.status)
	}
	done := b.submit(f)
	var session string
	for _, c := range done.header.Values("Set-Cookie") {
		if strings.HasPrefix(c, "slipway_session=") {
			session = c
		}
	}
	if !strings.Contains(session, "HttpOnly") || !strings.Contains(session, "SameSite=Lax") {
		t.Errorf("the session's cookie is %q", session)
	}
	// The API takes no cookie.
	if got := b.get("/api/oauth/grants"); got.status != http.StatusUnauthorized {
		t.Errorf("the API takes a cookie: %d", got.status)
	}
	// An app's token is no person: with it nobody signs in, to consent to more.
	app := s.register(t, false, "deploy:read")
	access, _ := s.redeem(t, app, b.code("alice", app, "scope", "deploy:read")).tokens(t)
	fresh := s.browser(t)
	asked := formOf(t, fresh.get(path).body)
	asked.values = url.Values{"next": asked.values["next"], "token": asked.values["token"], "access_token": {access}}
	if got := fresh.submit(asked); got.status != http.StatusUnauthorized {
		t.Errorf("an app signs in as the person: %d", got.status)
	}
}
