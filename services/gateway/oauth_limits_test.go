package gateway_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/subjects"
)

func TestNobodyPassesOnMoreThanTheyMay(t *testing.T) {
	t.Parallel()
	s := beginOAuth(t)
	admin := `{"name":"A","redirect_uris":["https://client.example/"],"scopes":["deploy:read","admin"]}`
	if got := s.as(t, "session-alice", http.MethodPost, "/api/oauth/apps", admin); got.status != http.StatusUnprocessableEntity || !strings.Contains(got.body, "scopes[1]") {
		t.Errorf("alice registers an app for admins: %d %s", got.status, got.body)
	}
	got := s.as(t, "session-root", http.MethodPost, "/api/oauth/apps", strings.Replace(admin, "https://client.example/", callback, 1))
	if got.status != http.StatusCreated {
		t.Fatalf("who runs the platform registers an app for admins: %d %s", got.status, got.body)
	}
	made, _ := got.json(t)["app"].(map[string]any)
	app := client{id: made["client_id"].(string), secret: got.json(t)["client_secret"].(string)}
	// Who is no admin cannot consent to it, who only reads cannot consent to deploying.
	for name, c := range map[string]struct {
		app    client
		scopes string
		status int
	}{
		"alice": {app, "admin", http.StatusBadRequest},
		"vera":  {s.register(t, true, "deploy:manage"), "deploy:manage", http.StatusBadRequest},
	} {
		b := s.browser(t)
		f := formOf(t, b.consent(name, "/api/oauth/authorize?"+c.app.query("scope", c.scopes)).body)
		f.values.Set("decision", "allow")
		if done := b.submit(f); done.status != c.status || done.header.Get("Location") != "" || !strings.Contains(done.body, "do not have all of it yourself") {
			t.Errorf("%s consents to %s: %d %s", name, c.scopes, done.status, done.body)
		}
	}
	access, _ := s.redeem(t, app, s.browser(t).code("root", app, "scope", "admin deploy:read")).tokens(t)
	if got := s.as(t, access, http.MethodGet, "/api/v1/admin/nodes"); got.status != http.StatusOK {
		t.Errorf("an admin's token: %d %s", got.status, got.body)
	}
	if got := s.as(t, "session-alice", http.MethodGet, "/api/oauth/apps/nobody"); got.status != http.StatusNotFound {
		t.Errorf("an app that there is not: %d", got.status)
	}
	// An app cannot register others, nor see what else its person has allowed.
	reader := s.register(t, false, "deploy:read")
	read, _ := s.redeem(t, reader, s.browser(t).code("root", reader, "scope", "deploy:read")).tokens(t)
	if got := s.as(t, read, http.MethodPost, "/api/oauth/apps", admin); got.status != http.StatusForbidden {
		t.Errorf("an app registers another: %d", got.status)
	}
	grants, _ := s.as(t, read, http.MethodGet, "/api/oauth/grants").json(t)["grants"].([]any)
	if len(grants) != 1 || grants[0].(map[string]any)["client_id"] != reader.id {
		t.Errorf("an app is shown %v", grants)
	}
}

func TestReadingIsNotManaging(t *testing.T) {
	t.Parallel()
	s := beginOAuth(t)
	app := s.register(t, false, "deploy:manage")
	// What includes reading may be asked for as reading alone.
	read, _ := s.redeem(t, app, s.browser(t).code("vera", app, "scope", "deploy:read")).tokens(t)
	if !strings.Contains(s.as(t, read, http.MethodGet, "/api/oauth/token").body, "deploy:read") {
		t.Error("no token for reading")
	}
	for path, status := range map[string]int{"GET /api/deploy/apps": 200, "GET /api/deploy/tiers": 200, "POST /api/deploy/apps": 403} {
		method, path, _ := strings.Cut(path, " ")
		if got := s.as(t, read, method, path); got.status != status {
			t.Errorf("%s %s: %d, want %d", method, path, got.status, status)
		}
	}
}

func TestTokensEndWithTimeMembershipAndPassword(t *testing.T) {
	t.Parallel()
	s := beginOAuth(t)
	app := s.register(t, false, "deploy:manage", "deploy:read")
	access, refresh := s.redeem(t, app, s.browser(t).code("alice", app)).tokens(t)
	for what, token := range map[string]string{
		"a letter more": access + "A", "a letter less": access[:len(access)-1], "another letter": access[:10] + "_" + access[11:],
		"the refresh token": refresh, "nothing but the prefix": "slp_", "alg none": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.",
	} {
		if s.works(t, token) && token != access {
			t.Errorf("%s works", what)
		}
	}
	s.later.Store(int64(time.Hour))
	if s.works(t, access) {
		t.Error("the token works after its hour")
	}
	access, refresh = s.refresh(t, app, refresh).tokens(t)
	if !s.works(t, access) {
		t.Fatal("the refreshed token does not work")
	}
	s.write(t, subjects.Platform, subjects.Operator, "alice", &identityv1.PasswordChanged{Password: []byte("sealed")})
	s.ends(t, access)
	s.refresh(t, app, refresh).refused(t, "after another password", 400, "invalid_grant")

	access, refresh = s.redeem(t, app, s.browser(t).code("vera", app, "scope", "deploy:read")).tokens(t)
	if !s.works(t, access) {
		t.Fatal("vera's token does not work")
	}
	s.write(t, "acme", subjects.Org, "acme", &identityv1.MemberRemoved{OperatorId: "vera"})
	s.ends(t, access)
	s.refresh(t, app, refresh).refused(t, "after leaving", 400, "invalid_grant")
}

func TestAPersonTakesBackWhatTheyAllowed(t *testing.T) {
	t.Parallel()
	s := beginOAuth(t)
	app := s.register(t, false, "deploy:manage")
	access, _ := s.redeem(t, app, s.browser(t).code("alice", app)).tokens(t)
	grants, _ := s.as(t, "session-alice", http.MethodGet, "/api/oauth/grants").json(t)["grants"].([]any)
	if len(grants) != 1 || grants[0].(map[string]any)["app_name"] != "Buddo <b>Deploy" {
		t.Fatalf("alice has allowed %v", grants)
	}
	path := "/api/oauth/grants/" + grants[0].(map[string]any)["id"].(string)
	if got := s.as(t, "session-root", http.MethodDelete, path); got.status != http.StatusNotFound || !s.works(t, access) {
		t.Errorf("somebody else takes it back: %d", got.status)
	}
	if got := s.as(t, "session-alice", http.MethodDelete, path); got.status != http.StatusOK {
		t.Errorf("taking it back: %d %s", got.status, got.body)
	}
	s.ends(t, access)
}

func TestADeviceIsLetInByAPerson(t *testing.T) {
	t.Parallel()
	s := beginOAuth(t)
	cli := client{id: "slipway-cli"}
	start := func() (deviceCode, userCode string) {
		t.Helper()
		got := s.call(t, http.MethodPost, "/api/oauth/device/code", "client_id=slipway-cli&scope=deploy%3Amanage", "Authorization", "Content-Type: application/x-www-form-urlencoded")
		body := got.json(t)
		if got.status != http.StatusOK || body["verification_uri"] != s.url+"/api/oauth/device" || body["interval"] != float64(5) || body["expires_in"] != float64(600) {
			t.Fatalf("a device starts: %d %s", got.status, got.body)
		}
		return body["device_code"].(string), body["user_code"].(string)
	}
	poll := func(code string) reply {
		t.Helper()
		return s.token(t, cli, "grant_type", "urn:ietf:params:oauth:grant-type:device_code", "device_code", code)
	}
	decide := func(name, userCode, decision string) reply {
		t.Helper()
		b := s.browser(t)
		page := b.consent(name, "/api/oauth/device?user_code="+url.QueryEscape(userCode))
		if !strings.Contains(page.body, userCode) || !strings.Contains(page.body, "Go on only if you have started this yourself") {
			t.Fatalf("the device's page: %d %s", page.status, page.body)
		}
		f := formOf(t, page.body)
		f.values.Set("decision", decision)
		return b.submit(f)
	}
	device, user := start()
	poll(device).refused(t, "before the decision", 400, "authorization_pending")
	poll(device).refused(t, "at once again", 400, "slow_down")
	poll(device+"x").refused(t, "a tampered code", 400, "invalid_grant")
	poll("sld_x.acme.g1").refused(t, "a made up code", 400, "invalid_grant")
	if got := decide("alice", strings.ToLower(user), "allow"); got.status != http.StatusOK || !strings.Contains(got.body, "You are signed in") {
		t.Fatalf("the decision: %d %s", got.status, got.body)
	}
	access, refresh := poll(device).tokens(t)
	if !s.works(t, access) {
		t.Error("the device's token does not work")
	}
	if info := s.as(t, access, http.MethodGet, "/api/oauth/token").json(t); info["app_id"] != "slipway-cli" || info["operator_id"] != "alice" {
		t.Errorf("the device's token is %v", info)
	}
	poll(device).refused(t, "a second time", 400, "invalid_grant")
	s.refresh(t, cli, refresh).tokens(t)

	device, user = start()
	decide("alice", user, "deny")
	poll(device).refused(t, "after a refusal", 400, "access_denied")
	device, user = start()
	if got := decide("vera", user, "allow"); got.status != http.StatusBadRequest {
		t.Errorf("who only reads lets a device deploy: %d", got.status)
	}
	s.later.Store(int64(10 * time.Minute))
	poll(device).refused(t, "after ten minutes", 400, "expired_token")
	b := s.browser(t)
	if got := b.consent("alice", "/api/oauth/device?user_code="+user); got.status != http.StatusNotFound || !strings.Contains(got.body, `role="alert"`) {
		t.Errorf("an expired user code: %d", got.status)
	}
	if got := b.get("/api/oauth/device"); got.status != http.StatusOK || !strings.Contains(got.body, `name="user_code"`) {
		t.Errorf("the page that asks for a code: %d", got.status)
	}
	// Other apps have a browser to send people with.
	app := s.register(t, false, "deploy:manage")
	got := s.call(t, http.MethodPost, "/api/oauth/device/code", "client_id="+app.id+"&scope=deploy%3Amanage", "Authorization", "Content-Type: application/x-www-form-urlencoded")
	got.refused(t, "an app that is no device", 400, "unauthorized_client")
}

func TestWhatClientsSendIsBounded(t *testing.T) {
	t.Parallel()
	s := beginOAuth(t)
	app := s.register(t, false, "deploy:manage")
	form := "Content-Type: application/x-www-form-urlencoded"
	for what, c := range map[string]struct {
		path, body, kind string
		status           int
	}{
		"a long body":            {"/api/oauth/token", "grant_type=refresh_token&refresh_token=" + strings.Repeat("x", 65<<10), form, 413},
		"parameters in the path": {"/api/oauth/token?client_id=" + app.id, "grant_type=refresh_token&refresh_token=x", form, 400},
		"a parameter twice":      {"/api/oauth/token", "grant_type=refresh_token&grant_type=refresh_token&client_id=" + app.id, form, 400},
		"a broken form":          {"/api/oauth/token", "grant_type=%zz", form, 400},
		"JSON with a list":       {"/api/oauth/token", `{"grant_type":["refresh_token"]}`, "Content-Type: application/json", 400},
		"JSON with a name twice": {"/api/oauth/token", `{"client_id":"a","client_id":"b"}`, "Content-Type: application/json", 400},
		"JSON with more after":   {"/api/oauth/token", `{"client_id":"a"}{}`, "Content-Type: application/json", 400},
		"XML":                    {"/api/oauth/token", "<a/>", "Content-Type: text/xml", 415},
		"two secrets":            {"/api/oauth/token", "grant_type=refresh_token&client_id=a&client_secret=b", form + "\x00Basic", 400},
		"a client assertion":     {"/api/oauth/token", "grant_type=refresh_token&refresh_token=x&client_assertion=x&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer", form, 401},
		"introspection unasked":  {"/api/oauth/introspect", "token=x&client_id=" + app.id, form, 400},
		"a name with a newline":  {"/api/oauth/token", "grant_type=x%0d%0aSet-Cookie%3A+a%3Db&client_id=a", form, 400},
	} {
		kind, basic, _ := strings.Cut(c.kind, "\x00")
		headers := []string{"Authorization", kind}
		if basic != "" {
			headers[0] = "Authorization: Basic YTpi"
		}
		got := s.call(t, http.MethodPost, c.path, c.body, headers...)
		if got.status != c.status || got.json(t)["error"] == nil || got.header.Get("Set-Cookie") != "" {
			t.Errorf("%s: %d %s, want %d", what, got.status, got.body, c.status)
		}
	}
	if got := statusLine(t, s.address, "GET /api/oauth/authorize HTTP/1.1\r\nHost: x\r\nCookie: slipway_session="+strings.Repeat("x", 40<<10)+"\r\n\r\n"); !strings.Contains(got, " 431 ") {
		t.Errorf("a header of 40 KiB: %q", got)
	}
	if got := s.call(t, http.MethodGet, "/api/oauth/authorize?"+app.query("state", strings.Repeat("x", 3000)), "", "Authorization"); got.status != http.StatusBadRequest || got.header.Get("Location") != "" {
		t.Errorf("a state of 3000 letters: %d", got.status)
	}
	if got := s.call(t, http.MethodGet, "/api/oauth/authorize?"+app.query(), "", "Authorization", "Cookie: slipway_session=session-alice; slipway_session=session-root"); !strings.Contains(got.body, `name="password"`) {
		t.Errorf("two session cookies: %d %s", got.status, got.body)
	}
}

// statusLine is how the server answers bytes, read while they are still being sent: it
// hangs up on what is too much.
func statusLine(t *testing.T, address, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		// The server may hang up before it has all.
		_, _ = io.WriteString(conn, request)
	}()
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Errorf("no answer: %v", err)
	}
	<-sent
	return line
}
