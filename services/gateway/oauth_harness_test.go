package gateway_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/net/html"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/caller"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/rpc"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/gateway"
	"github.com/slipway-paas/slipway/services/identity"
)

const (
	callback = "https://client.example/callback?from=slipway"
	verifier = "a-verifier-of-more-than-forty-three-characters.~_"
)

// oauthStage is a gateway before the real identity. In it are alice, who owns acme, vera,
// who only reads in it, and root, who runs the platform.
type oauthStage struct {
	*stage
	// later is added to identity's clock.
	later atomic.Int64
}

// passwords opens the sessions that the stage has written to the log.
type passwords struct {
	identityv1.UnimplementedAccountServiceServer
}

func (passwords) Login(_ context.Context, req *identityv1.LoginRequest) (*identityv1.LoginResponse, error) {
	name, _, _ := strings.Cut(req.GetEmail(), "@")
	if req.GetPassword() != "password of "+name {
		return nil, problem.Unauthorized("The e-mail address or the password is not right.")
	}
	return &identityv1.LoginResponse{Token: "session-" + name}, nil
}

func (passwords) GetMe(ctx context.Context, _ *identityv1.GetMeRequest) (*identityv1.GetMeResponse, error) {
	who := &identityv1.Principal{}
	if err := caller.Incoming(ctx, who); err != nil {
		return nil, err
	}
	return &identityv1.GetMeResponse{User: &identityv1.User{Email: who.GetOperatorId() + "@example.com"}}, nil
}

func beginOAuth(t testing.TB) *oauthStage {
	t.Helper()
	s := &oauthStage{}
	log := slog.New(slog.DiscardHandler)
	inside, err := rpc.NewMemory(log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = inside.Close() })
	logins, err := rpc.NewMemory(log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = logins.Close() })
	master, err := seal.Master(filepath.Join(t.TempDir(), "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	s.stage = begin(t, func(_ *gateway.Config, d *gateway.Deps) {
		known, err := identity.New(identity.Config{}, identity.Deps{Store: d.Store, Seal: seal.New(master, seal.NewMemory()), Now: s.now, Log: log})
		if err != nil {
			t.Fatal(err)
		}
		known.Register(inside)
		identityv1.RegisterAccountServiceServer(logins, passwords{})
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- known.Run(ctx) }()
		t.Cleanup(func() {
			stop()
			if err := <-ended; err != nil {
				t.Errorf("identity did not stop cleanly: %v", err)
			}
		})
		eventually(t, "identity is ready", func() bool { return known.Ready() == nil })
		d.Identity = identityv1.NewIdentityServiceClient(inside.Conn())
		d.OAuth = identityv1.NewOAuthServiceClient(inside.Conn())
		d.Accounts = identityv1.NewAccountServiceClient(logins.Conn())
		d.Orgs = identityv1.NewOrgServiceClient(inside.Conn())
		d.Now = s.now
	})
	s.write(t, "acme", subjects.Org, "acme", &identityv1.OrgCreated{OrgId: "acme", Name: "Acme", OwnerId: "alice"})
	s.write(t, "acme", subjects.Org, "acme", &identityv1.MemberJoined{OperatorId: "vera", InvitationId: "i1", Role: "viewer"})
	s.write(t, "acme", subjects.Org, "acme", &identityv1.MemberJoined{OperatorId: "root", InvitationId: "i2", Role: "member"})
	for _, name := range []string{"alice", "vera", "root"} {
		mail, token := sha256.Sum256([]byte(name)), sha256.Sum256([]byte("session-"+name))
		s.write(t, subjects.Platform, subjects.Operator, name, &identityv1.OperatorRegistered{
			OperatorId: name, PersonalOrgId: "acme", EmailHash: mail[:], Admin: name == "root",
		})
		s.write(t, subjects.Platform, subjects.Session, "s-"+name, &identityv1.SessionOpened{
			SessionId: "s-" + name, OperatorId: name, TokenSha256: token[:], ExpiresAt: timestamppb.New(time.Now().Add(1000 * time.Hour)),
		})
	}
	eventually(t, "the people are known", func() bool {
		return s.as(t, "session-root", http.MethodGet, "/api/oauth/token").status == http.StatusOK
	})
	return s
}

func (s *oauthStage) now() time.Time { return time.Now().Add(time.Duration(s.later.Load())) }

func (s *oauthStage) write(t testing.TB, org, kind, id string, payload proto.Message) {
	t.Helper()
	_, err := s.store.Record(t.Context(), eventstore.Event{
		Aggregate: subjects.Of(org, kind, id), ID: uuid.NewString(), Payload: payload, Time: s.now(), Source: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (s *oauthStage) as(t testing.TB, token, method, path string, body ...string) reply {
	t.Helper()
	return s.call(t, method, path, strings.Join(body, ""), "Authorization: Bearer "+token)
}

// client is a registered OAuth app.
type client struct{ id, secret string }

func (s *oauthStage) register(t testing.TB, confidential bool, scopes ...string) client {
	t.Helper()
	body, err := json.Marshal(map[string]any{"name": "Buddo <b>Deploy", "redirect_uris": []string{callback}, "confidential": confidential, "scopes": scopes})
	if err != nil {
		t.Fatal(err)
	}
	got := s.as(t, "session-alice", http.MethodPost, "/api/oauth/apps", string(body))
	if got.status != http.StatusCreated {
		t.Fatalf("register: %d %s", got.status, got.body)
	}
	app, _ := got.json(t)["app"].(map[string]any)
	secret, _ := got.json(t)["client_secret"].(string)
	if (secret != "") != confidential {
		t.Fatalf("the secret of an app (confidential: %v) is %q", confidential, secret)
	}
	return client{id: app["client_id"].(string), secret: secret}
}

// query is an authorization request; pairs of name and value change it, an empty value
// takes a parameter away.
func (c client) query(change ...string) string {
	hash := sha256.Sum256([]byte(verifier))
	q := url.Values{
		"response_type": {"code"}, "client_id": {c.id}, "redirect_uri": {callback}, "scope": {"deploy:manage"}, "state": {"the state"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(hash[:])}, "code_challenge_method": {"S256"},
	}
	for i := 0; i+1 < len(change); i += 2 {
		if q.Del(change[i]); change[i+1] != "" {
			q.Set(change[i], change[i+1])
		}
	}
	return q.Encode()
}

// browser is a person at a browser that follows no redirects by itself.
type browser struct {
	t    testing.TB
	s    *oauthStage
	http *http.Client
}

func (s *oauthStage) browser(t testing.TB) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t: t, s: s, http: &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

func (b *browser) send(method, path, body string, headers ...string) reply {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.s.url+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", b.s.url)
		req.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	res, err := b.http.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header, string(text)}
}

func (b *browser) get(path string) reply {
	b.t.Helper()
	return b.send(http.MethodGet, path, "")
}

// form is the first form of a page, with what is filled in.
type form struct {
	action string
	values url.Values
}

func formOf(t testing.TB, page string) form {
	t.Helper()
	tree, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	out := form{values: url.Values{}}
	attribute := func(n *html.Node, name string) string {
		for _, a := range n.Attr {
			if a.Key == name {
				return a.Val
			}
		}
		return ""
	}
	var inputs func(n *html.Node)
	inputs = func(n *html.Node) {
		if n.Type == html.ElementNode && n.Data == "input" && attribute(n, "name") != "" {
			out.values.Set(attribute(n, "name"), attribute(n, "value"))
		}
		for c := n.FirstChild; c != nil; c = c.NextSibling {
			inputs(c)
		}
	}
	for n := range tree.Descendants() {
		if n.Type == html.ElementNode && n.Data == "form" {
			out.action = attribute(n, "action")
			inputs(n)
			return out
		}
	}
	t.Fatalf("no form in %s", page)
	return out
}

func (b *browser) submit(f form, headers ...string) reply {
	b.t.Helper()
	return b.send(http.MethodPost, f.action, f.values.Encode(), headers...)
}

// consent goes to a page and signs in when asked to; it ends at the consent page.
func (b *browser) consent(name, path string) reply {
	b.t.Helper()
	page := b.get(path)
	if strings.Contains(page.body, `name="password"`) {
		f := formOf(b.t, page.body)
		f.values.Set("email", name+"@example.com")
		f.values.Set("password", "password of "+name)
		back := b.submit(f)
		if back.status != http.StatusSeeOther || back.header.Get("Location") != path {
			b.t.Fatalf("signing in leads to %d %q, want %q: %s", back.status, back.header.Get("Location"), path, back.body)
		}
		page = b.get(path)
	}
	return page
}

// code is the authorization code that the person's consent gives the client.
func (b *browser) code(name string, c client, change ...string) string {
	b.t.Helper()
	page := b.consent(name, "/api/oauth/authorize?"+c.query(change...))
	if page.status != http.StatusOK {
		b.t.Fatalf("the consent page: %d %s", page.status, page.body)
	}
	f := formOf(b.t, page.body)
	f.values.Set("decision", "allow")
	done := b.submit(f)
	to, err := url.Parse(done.header.Get("Location"))
	if err != nil || done.status != http.StatusSeeOther || to.Query().Get("code") == "" {
		b.t.Fatalf("consent leads to %d %q: %s", done.status, done.header.Get("Location"), done.body)
	}
	return to.Query().Get("code")
}

// token asks the token endpoint; pairs of name and value change the request.
func (s *oauthStage) token(t testing.TB, c client, change ...string) reply {
	t.Helper()
	values := url.Values{"client_id": {c.id}}
	if c.secret != "" {
		values.Set("client_secret", c.secret)
	}
	for i := 0; i+1 < len(change); i += 2 {
		if values.Del(change[i]); change[i+1] != "" {
			values.Set(change[i], change[i+1])
		}
	}
	return s.call(t, http.MethodPost, "/api/oauth/token", values.Encode(), "Authorization", "Content-Type: application/x-www-form-urlencoded")
}

func (s *oauthStage) redeem(t testing.TB, c client, code string, change ...string) reply {
	t.Helper()
	return s.token(t, c, append([]string{"grant_type", "authorization_code", "code", code, "redirect_uri", callback, "code_verifier", verifier}, change...)...)
}

func (s *oauthStage) refresh(t testing.TB, c client, token string, change ...string) reply {
	t.Helper()
	return s.token(t, c, append([]string{"grant_type", "refresh_token", "refresh_token", token}, change...)...)
}

// tokens are those in an answer that must be one of success.
func (r reply) tokens(t testing.TB) (access, refresh string) {
	t.Helper()
	if r.status != http.StatusOK {
		t.Fatalf("no tokens: %d %s", r.status, r.body)
	}
	body := r.json(t)
	access, _ = body["access_token"].(string)
	refresh, _ = body["refresh_token"].(string)
	if access == "" || refresh == "" || body["token_type"] != "Bearer" || r.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("the token answer is %s (%v)", r.body, r.header)
	}
	return access, refresh
}

// refused wants OAuth's error with that code.
func (r reply) refused(t testing.TB, what string, status int, code string) {
	t.Helper()
	if r.status != status || r.json(t)["error"] != code || r.json(t)["error_description"] == "" {
		t.Errorf("%s: %d %s, want %d %s", what, r.status, r.body, status, code)
	}
}

func (s *oauthStage) works(t testing.TB, access string) bool {
	t.Helper()
	got := s.as(t, access, http.MethodGet, "/api/deploy/apps")
	if got.status != http.StatusOK && got.status != http.StatusUnauthorized {
		t.Fatalf("a call with the token: %d %s", got.status, got.body)
	}
	return got.status == http.StatusOK
}

// ends wants the token refused within a second.
func (s *oauthStage) ends(t testing.TB, access string) {
	t.Helper()
	for deadline := time.Now().Add(time.Second); s.works(t, access); {
		if time.Now().After(deadline) {
			t.Error("the token still works a second later")
			return
		}
	}
}
