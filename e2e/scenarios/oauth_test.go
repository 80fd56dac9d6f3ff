package scenarios

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/e2e/stack"
)

// A stranger's app gets to deploy for a person, with nothing but HTTP, and loses it again.
func TestTheStoryOfAnAppThatDeploysForAPerson(t *testing.T) {
	t.Parallel()
	s := platform(t)
	const callback = "https://client.example/callback"
	mail := name(t) + "@example.com"
	person := &client.Client{API: s.API}
	person.Token, _ = expect(t, person, http.StatusOK, http.MethodPost, "/api/v1/auth/register", map[string]any{
		"email": mail, "password": "correct horse battery staple", "name": "Alice",
	}).JSON()["token"].(string)

	// The app is registered; its secret is shown once.
	made := expect(t, person, http.StatusCreated, http.MethodPost, "/api/oauth/apps", map[string]any{
		"name": "Deploy bot", "redirect_uris": []string{callback}, "scopes": []string{"deploy:manage"},
	})
	id, _ := made.Object("app")["client_id"].(string)
	secret, _ := made.JSON()["client_secret"].(string)
	if shown := expect(t, person, http.StatusOK, http.MethodGet, "/api/oauth/apps/"+id, nil); secret == "" || strings.Contains(string(shown.Body), secret) {
		t.Fatalf("registered as %s, shown as %s", made, shown)
	}
	// A login's token is not for deploying.
	expect(t, person, http.StatusUnauthorized, http.MethodGet, "/api/deploy/apps", nil)

	// The person signs in and consents, in a browser.
	random := make([]byte, 32)
	_, _ = rand.Read(random)
	verifier := base64.RawURLEncoding.EncodeToString(random)
	hash := sha256.Sum256([]byte(verifier))
	page := "/api/oauth/authorize?" + url.Values{
		"response_type": {"code"}, "client_id": {id}, "redirect_uri": {callback}, "scope": {"deploy:manage"}, "state": {"xyz"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(hash[:])}, "code_challenge_method": {"S256"},
	}.Encode()
	b := newBrowser(t, s)
	b.get(page)
	b.submit("/api/oauth/sign-in", "email", mail, "password", "correct horse battery staple")
	if said := b.get(b.location); !strings.Contains(said, "Deploy bot") || !strings.Contains(said, "deploy:manage") {
		t.Fatalf("the consent page says %s", said)
	}
	b.submit("/api/oauth/authorize", "decision", "allow")
	back, err := url.Parse(b.location)
	if err != nil || !strings.HasPrefix(b.location, callback+"?") || back.Query().Get("state") != "xyz" || back.Query().Get("iss") != s.API {
		t.Fatalf("consent leads to %q", b.location)
	}

	// The code becomes tokens, the token deploys in the app's name.
	bot := &client.Client{API: s.API}
	ask := func(status int, path string, body map[string]string) client.Answer {
		t.Helper()
		body["client_id"], body["client_secret"] = id, secret
		return expect(t, bot, status, http.MethodPost, "/api/oauth/"+path, body)
	}
	tokens := ask(http.StatusOK, "token", map[string]string{
		"grant_type": "authorization_code", "code": back.Query().Get("code"), "redirect_uri": callback, "code_verifier": verifier,
	}).JSON()
	mine := &client.Client{API: s.API}
	mine.Token, _ = tokens["access_token"].(string)
	deployment := expect(t, mine, http.StatusCreated, http.MethodPost, "/api/deploy/apps", map[string]any{
		"subdomain": name(t), "tier": "buddo-starter", "image": push(t, s, "latest", "one"), "port": 8080,
	}).Object("deployment")
	d := &app{t: t, s: s, c: mine, id: deployment["id"].(string), subdomain: name(t), host: s.Host(name(t))}
	if got := d.get()["app_id"]; got != id {
		t.Errorf("the deployment's app is %v, want %s", got, id)
	}
	d.wait("running")
	d.serves("one")
	if logs := d.logs(); len(logs) == 0 || logs[0]["initiated_by"] != id {
		t.Errorf("the log says %v", logs)
	}
	// It is nobody else's.
	expect(t, s.Client(), http.StatusForbidden, http.MethodGet, d.path(""), nil)

	// Refreshing gives others; the old refresh token ends. Who lost the answer asks again
	// with the same key, and is no thief.
	bot.Header = map[string]string{"Idempotency-Key": `"refresh-` + name(t) + `"`}
	refresh := map[string]string{"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"].(string)}
	once, twice := ask(http.StatusOK, "token", refresh), ask(http.StatusOK, "token", refresh)
	if string(once.Body) != string(twice.Body) || twice.Header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("refreshed to %s, and again to %s", once, twice)
	}
	refresh["scope"] = "deploy:read"
	ask(http.StatusUnprocessableEntity, "token", refresh)
	bot.Header = nil
	tokens["refresh_token"] = once.JSON()["refresh_token"]
	fresh := ask(http.StatusOK, "token", map[string]string{"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"].(string)}).JSON()
	mine.Token, _ = fresh["access_token"].(string)
	d.destroy()
	d.wait("destroyed")

	// Revoked, the token ends within a second.
	ask(http.StatusOK, "revoke", map[string]string{"token": fresh["refresh_token"].(string)})
	revoked := time.Now()
	eventually(t, "the token has ended", func(context.Context) (bool, string, error) {
		answer := call(t, d.c, http.MethodGet, "/api/deploy/apps", nil)
		return answer.Status == http.StatusUnauthorized, answer.String(), nil
	})
	if took := time.Since(revoked); took > time.Second {
		t.Errorf("the token worked %v after it was revoked", took)
	}
	ask(http.StatusBadRequest, "token", map[string]string{"grant_type": "refresh_token", "refresh_token": fresh["refresh_token"].(string)})
}

// browser keeps cookies and follows no redirects by itself.
type browser struct {
	t *testing.T
	s *stack.Stack
	c *http.Client
	// page is the last one, location where it led.
	page, location string
}

func newBrowser(t *testing.T, s *stack.Stack) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t: t, s: s, c: &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

func (b *browser) get(path string) string {
	b.t.Helper()
	return b.send(http.MethodGet, path, nil)
}

var hidden = regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)">`)

// submit is form for one that leads on.
func (b *browser) submit(action string, more ...string) {
	b.t.Helper()
	if b.form(action, more...); b.location == "" {
		b.t.Fatalf("the form for %s leads nowhere: %s", action, b.page)
	}
}

// form sends the last page's first form of that action, with more filled in.
func (b *browser) form(action string, more ...string) {
	b.t.Helper()
	_, form, found := strings.Cut(b.page, `action="`+action+`"`)
	if !found {
		b.t.Fatalf("no form for %s in %s", action, b.page)
	}
	form, _, _ = strings.Cut(form, "</form>")
	values := url.Values{}
	for _, field := range hidden.FindAllStringSubmatch(form, -1) {
		values.Set(field[1], html.UnescapeString(field[2]))
	}
	for i := 0; i+1 < len(more); i += 2 {
		values.Set(more[i], more[i+1])
	}
	b.send(http.MethodPost, action, values)
}

func (b *browser) send(method, path string, form url.Values) string {
	b.t.Helper()
	request, err := http.NewRequestWithContext(b.t.Context(), method, b.s.API+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	if method == http.MethodPost {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.Header.Set("Origin", b.s.API)
		request.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	response, err := b.c.Do(request)
	if err != nil {
		b.t.Fatal(err)
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	b.page, b.location = string(page), response.Header.Get("Location")
	return b.page
}

// A person signs the command line in with a browser that need not be on its machine.
func TestTheStoryOfSigningTheCommandLineIn(t *testing.T) {
	t.Parallel()
	s := platform(t)
	mail := name(t) + "@example.com"
	expect(t, &client.Client{API: s.API}, http.StatusOK, http.MethodPost, "/api/v1/auth/register", map[string]any{
		"email": mail, "password": "correct horse battery staple", "name": "Alice",
	})
	home := t.TempDir()
	slipway := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), s.Binary("slipway"), args...)
		cmd.Dir, cmd.Env = home, []string{"HOME=" + home}
		return cmd
	}
	login := slipway("login", s.API)
	said, err := login.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := login.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(said)
	var path string
	for path == "" && lines.Scan() {
		if address, found := strings.CutPrefix(lines.Text(), "Open "+s.API); found {
			path = address
		}
	}
	b := newBrowser(t, s)
	b.get(path)
	b.submit("/api/oauth/sign-in", "email", mail, "password", "correct horse battery staple")
	if page := b.get(b.location); !strings.Contains(page, "slipway, the command line") || !strings.Contains(page, mail) {
		t.Fatalf("the device's page says %s", page)
	}
	b.form("/api/oauth/device", "decision", "allow")
	for lines.Scan() { // until it ends
	}
	if err := login.Wait(); err != nil {
		t.Fatalf("login: %v: %s", err, b.page)
	}
	if out, err := slipway("whoami").CombinedOutput(); err != nil || !strings.Contains(string(out), "slipway-cli") {
		t.Errorf("whoami: %v: %s", err, out)
	}
	if out, err := slipway("status").CombinedOutput(); err != nil {
		t.Errorf("status: %v: %s", err, out)
	}
	if out, err := slipway("tokens").CombinedOutput(); err != nil || !strings.Contains(string(out), "slipway, the command line") {
		t.Errorf("tokens: %v: %s", err, out)
	}
	if out, err := slipway("logout").CombinedOutput(); err != nil {
		t.Errorf("logout: %v: %s", err, out)
	}
	if out, err := slipway("whoami").CombinedOutput(); err == nil {
		t.Errorf("signed out, and yet: %s", out)
	}
}
