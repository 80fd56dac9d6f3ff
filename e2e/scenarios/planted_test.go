package scenarios

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/e2e/otlp"
	"github.com/slipway-paas/slipway/e2e/stack"
	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	eventlog "github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/identity/totp"
)

// planted are secrets by what they are.
type planted map[string]string

// in fails the test for each secret that content tells: as it is, in hex or in base64.
func (p planted) in(t *testing.T, where string, content []byte) {
	t.Helper()
	for what, secret := range p {
		for form, text := range map[string]string{
			"clear": secret, "hex": hex.EncodeToString([]byte(secret)), "base64": base64.StdEncoding.EncodeToString([]byte(secret))[:len(secret)/3*4],
		} {
			if bytes.Contains(content, []byte(text)) {
				t.Errorf("%s tells the %s in %s", where, what, form)
			}
		}
	}
}

// must notes a secret that was given.
func (p planted) must(t *testing.T, what string, value any) string {
	t.Helper()
	text, _ := value.(string)
	if len(text) < 6 {
		t.Fatalf("the %s is %v", what, value)
	}
	p[what] = text
	return text
}

// plantAccount registers somebody and makes every credential that a person can have.
func plantAccount(t *testing.T, s *stack.Stack, p planted) (errorBodies [][]byte) {
	t.Helper()
	p["e-mail address"] = "planted-" + rand.Text() + "@example.com"
	p["person's name"] = "Planted " + rand.Text()
	p["first password"], p["password"], p["wrong password"] = "planted-"+rand.Text(), "planted-"+rand.Text(), "planted-"+rand.Text()
	failed := func(status int, c *client.Client, path string, body any) {
		t.Helper()
		errorBodies = append(errorBodies, expect(t, c, status, http.MethodPost, path, body).Body)
	}
	who := anonymous(s)
	who.Token = p.must(t, "first session", expect(t, who, http.StatusOK, http.MethodPost, "/api/v1/auth/register",
		map[string]any{"email": p["e-mail address"], "password": p["first password"], "name": p["person's name"]}).JSON()["token"])
	who.Token = p.must(t, "session", expect(t, who, http.StatusOK, http.MethodPost, "/api/v1/auth/password",
		map[string]any{"current_password": p["first password"], "new_password": p["password"]}).JSON()["token"])
	failed(http.StatusUnauthorized, anonymous(s), "/api/v1/auth/login", map[string]any{"email": p["e-mail address"], "password": p["wrong password"]})
	failed(http.StatusBadRequest, anonymous(s), "/api/v1/auth/login", map[string]any{"email": []string{p["e-mail address"]}, "password": map[string]any{"x": p["password"]}})

	once := &client.Client{API: s.API, Token: who.Token, Header: map[string]string{"Idempotency-Key": rand.Text()}}
	p.must(t, "API key", expect(t, once, http.StatusCreated, http.MethodPost, "/api/v1/api-keys", map[string]any{"name": "ci", "scopes": []string{"deploy:read"}}).JSON()["key"])
	expect(t, &client.Client{API: s.API, Header: map[string]string{"x-api-key": p["API key"]}}, http.StatusOK, http.MethodGet, "/api/v1/auth/me", nil)
	failed(http.StatusUnauthorized, &client.Client{API: s.API, Header: map[string]string{"x-api-key": p["API key"] + "x"}}, "/api/v1/auth/logout", nil)
	failed(http.StatusUnauthorized, &client.Client{API: s.API, Token: p["session"] + "x"}, "/api/v1/auth/logout", nil)

	plantOAuth(t, s, p, who, failed)
	plantWebhook(t, s, p, who, failed)

	p.must(t, "second factor", expect(t, who, http.StatusOK, http.MethodPost, "/api/v1/auth/totp", map[string]any{"password": p["password"]}).JSON()["secret"])
	code, err := totp.Code(p["second factor"], time.Now())
	if err != nil {
		t.Fatal(err)
	}
	recovery, _ := expect(t, who, http.StatusOK, http.MethodPost, "/api/v1/auth/totp/confirm", map[string]any{"code": code}).JSON()["recovery_codes"].([]any)
	for i, c := range recovery {
		p.must(t, fmt.Sprintf("recovery code %d", i), c)
	}
	login := map[string]any{"email": p["e-mail address"], "password": p["password"], "code": p["recovery code 0"]}
	p.must(t, "session by recovery code", expect(t, anonymous(s), http.StatusOK, http.MethodPost, "/api/v1/auth/login", login).JSON()["token"])
	failed(http.StatusUnauthorized, anonymous(s), "/api/v1/auth/login", login) // it is used up
	return errorBodies
}

// plantWebhook has what happens to the person's organization told to an endpoint, whose
// URL holds a token as such URLs often do.
func plantWebhook(t *testing.T, s *stack.Stack, p planted, who *client.Client, failed func(int, *client.Client, string, any)) {
	t.Helper()
	r := receive(t, http.StatusNoContent)
	p["token in a webhook's URL"], p["token in a webhook's next URL"] = "planted-"+rand.Text(), "planted-"+rand.Text()
	once := &client.Client{API: s.API, Token: who.Token, Header: map[string]string{"Idempotency-Key": rand.Text()}}
	made := expect(t, once, http.StatusCreated, http.MethodPost, "/api/v1/webhooks", map[string]any{"url": r.URL + "/" + p["token in a webhook's URL"]})
	id, _ := made.Object("webhook")["id"].(string)
	p.must(t, "webhook's first secret", made.JSON()["secret"])
	p.must(t, "webhook's secret", expect(t, who, http.StatusOK, http.MethodPost, "/api/v1/webhooks/"+id+"/rotate-secret", nil).JSON()["secret"])
	expect(t, who, http.StatusOK, http.MethodPut, "/api/v1/webhooks/"+id, map[string]any{"url": r.URL + "/" + p["token in a webhook's next URL"]})
	if tested := expect(t, who, http.StatusOK, http.MethodPost, "/api/v1/webhooks/"+id+"/test", nil).JSON(); tested["accepted"] != true {
		t.Errorf("the test of a webhook says %v", tested)
	}
	expect(t, who, http.StatusCreated, http.MethodPost, "/api/v1/api-keys", map[string]any{"name": "told", "scopes": []string{"deploy:read"}})
	eventually(t, "the endpoint is told", func(context.Context) (bool, string, error) {
		return len(r.received()) > 1, fmt.Sprint(len(r.received())), nil
	})
	for _, m := range r.received() {
		p.in(t, "a webhook's message", m.body)
	}
	r.Close()
	// What cannot be reached says why, and not where.
	expect(t, who, http.StatusOK, http.MethodPost, "/api/v1/webhooks/"+id+"/test", nil)
	failed(http.StatusUnprocessableEntity, who, "/api/v1/webhooks", map[string]any{"url": "https://10.0.0.1/" + p["token in a webhook's URL"]})
	failed(http.StatusBadRequest, who, "/api/v1/webhooks", map[string]any{"url": []string{p["token in a webhook's URL"]}})
}

// plantOAuth lets an app act for the person.
func plantOAuth(t *testing.T, s *stack.Stack, p planted, who *client.Client, failed func(int, *client.Client, string, any)) {
	t.Helper()
	const callback = "https://client.example/callback"
	made := expect(t, who, http.StatusCreated, http.MethodPost, "/api/oauth/apps",
		map[string]any{"name": "Bot", "redirect_uris": []string{callback}, "scopes": []string{"deploy:manage"}})
	id, _ := made.Object("app")["client_id"].(string)
	p.must(t, "client secret", made.JSON()["client_secret"])
	p["code verifier"] = "planted-" + rand.Text() + rand.Text()
	hash := sha256.Sum256([]byte(p["code verifier"]))
	b := newBrowser(t, s)
	b.get("/api/oauth/authorize?" + url.Values{
		"response_type": {"code"}, "client_id": {id}, "redirect_uri": {callback}, "scope": {"deploy:manage"}, "state": {"xyz"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(hash[:])}, "code_challenge_method": {"S256"},
	}.Encode())
	b.submit("/api/oauth/sign-in", "email", p["e-mail address"], "password", p["password"])
	b.get(b.location)
	b.submit("/api/oauth/authorize", "decision", "allow")
	back, err := url.Parse(b.location)
	if err != nil {
		t.Fatal(err)
	}
	p.must(t, "authorization code", back.Query().Get("code"))
	ask := map[string]string{"client_id": id, "client_secret": p["client secret"], "grant_type": "authorization_code",
		"code": p["authorization code"], "redirect_uri": callback, "code_verifier": p["code verifier"]}
	tokens := expect(t, anonymous(s), http.StatusOK, http.MethodPost, "/api/oauth/token", ask).JSON()
	p.must(t, "access token", tokens["access_token"])
	p.must(t, "refresh token", tokens["refresh_token"])
	expect(t, &client.Client{API: s.API, Token: p["access token"]}, http.StatusOK, http.MethodGet, "/api/deploy/apps", nil)
	failed(http.StatusBadRequest, anonymous(s), "/api/oauth/token", map[string]string{"client_id": id, "client_secret": p["client secret"],
		"grant_type": "refresh_token", "refresh_token": p["refresh token"] + "x"})
	failed(http.StatusUnauthorized, anonymous(s), "/api/oauth/token", map[string]string{"client_id": id, "client_secret": p["client secret"] + "x",
		"grant_type": "refresh_token", "refresh_token": p["refresh token"]})
	failed(http.StatusBadRequest, anonymous(s), "/api/oauth/token", ask) // replayed: everything of it ends
}

// inStreams looks at every message of every stream, key-value buckets among them.
func (p planted) inStreams(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	streams, messages := 0, 0
	names := js.StreamNames(t.Context())
	for name := range names.Name() {
		streams++
		stream, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		state := stream.CachedInfo().State
		for seq := state.FirstSeq; state.Msgs > 0 && seq <= state.LastSeq; seq++ {
			m, err := stream.GetMsg(t.Context(), seq)
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			messages++
			p.in(t, "a message of "+m.Subject, fmt.Appendf(nil, "%s %v %s", m.Subject, m.Header, m.Data))
		}
	}
	if err := names.Err(); err != nil || streams < 8 || messages < 40 {
		t.Errorf("only %d messages of %d streams were looked at: %v", messages, streams, err)
	}
}

// inTables looks at every row of every table.
func (p planted) inTables(t *testing.T, database string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	tables, err := conn.Query(t.Context(), `SELECT quote_ident(table_schema) || '.' || quote_ident(table_name) FROM information_schema.tables
		WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')`)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(tables, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, table := range all {
		rows, err := conn.Query(t.Context(), "SELECT t::text FROM "+table+" t")
		if err != nil {
			t.Fatal(err)
		}
		texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range texts {
			count++
			p.in(t, "a row of "+table, []byte(text))
		}
	}
	if len(all) < 2 || count < 4 {
		t.Errorf("only %d rows of %v were looked at", count, all)
	}
}

// sealedOf is what the log has of a deployment's values.
func sealedOf(t *testing.T, js jetstream.JetStream, id string) (a subjects.Aggregate, ciphertext []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := eventlog.New(js, slog.New(slog.DiscardHandler)).Follow(ctx, 0, func(_ context.Context, events []eventstore.Recorded) error {
		for _, e := range events {
			if asked, ok := e.Payload.(*deploymentv1.DeploymentRequested); ok && e.Aggregate.ID == id {
				a, ciphertext = e.Aggregate, asked.GetRelease().GetEnv().GetCiphertext()
			}
		}
		return nil
	}, cancel, subjects.AllEvents)
	if len(ciphertext) == 0 {
		t.Fatalf("the log has nothing sealed of %s: %v", id, err)
	}
	return a, ciphertext
}

func TestPlantedSecretsAreFoundNowhereAndGoWithTheirApp(t *testing.T) {
	t.Parallel()
	spans, err := otlp.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(spans.Close)
	s := own(t, stack.Processes, stack.Options{Env: append(spans.Env(), "SLIPWAY_LOG_LEVEL=debug"), Inside: insideEndpoints()})
	p := planted{"variable": "planted-" + rand.Text()}
	image := push(t, s, "latest", "one")
	a := deploy(t, s, map[string]any{"image": image, "port": 8080, "env_vars": map[string]string{"PLANTED": p["variable"]}})
	if got := a.visit("/env?name=PLANTED").JSON()["value"]; got != p["variable"] {
		t.Fatalf("the app sees %v", got)
	}
	bodies := plantAccount(t, s, p)
	for _, wrong := range []any{
		map[string]any{"image": image, "port": 8080, "subdomain": name(t, "x"), "env_vars": map[string]any{"NAME=" + p["variable"]: "x", "OTHER": p["variable"]}},
		map[string]any{"image": image, "port": 8080, "subdomain": name(t, "x"), "env_vars": map[string]any{"OTHER": []string{p["variable"]}}},
		map[string]any{"image": image, "port": p["variable"], "env_vars": p["variable"], "subdomain": name(t, "x")},
		`{"env_vars": {"PLANTED": "` + p["variable"] + `"`,
	} {
		answer := call(t, s.Client(), http.MethodPost, "/api/deploy/apps", wrong)
		if answer.Status < 400 || answer.Status >= 500 {
			t.Errorf("%v was answered with %s", wrong, answer)
		}
		bodies = append(bodies, answer.Body)
	}
	for _, body := range bodies {
		p.in(t, "the error "+string(body), body)
	}
	p["first operator's token"] = s.Token

	js, closeIt, err := s.ConnectNATS("secrets")
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt()
	look := func() {
		t.Helper()
		p.inStreams(t, js)
		p.inTables(t, s.Database)
		p.inFiles(t, s, 5)
		if raw := spans.Raw(); spans.Exports() == 0 || !bytes.Contains(raw, []byte("CreateDeployment")) {
			t.Error("there are no traces to look at")
		} else {
			p.in(t, "a trace", raw)
		}
	}
	containers := a.containers()
	for _, c := range containers {
		i, err := s.Nodes()[0].Podman().Inspect(t.Context(), c.ID)
		if err != nil {
			t.Fatal(err)
		}
		if len(i.Config.Labels) == 0 {
			t.Error("the container has no labels")
		}
		i.Config.Env = nil // where the app reads it
		text, err := json.Marshal([]any{c, i})
		if err != nil {
			t.Fatal(err)
		}
		p.in(t, "Podman", text)
	}
	if len(containers) == 0 {
		t.Error("there is no container to look at")
	}
	look()

	keys, err := js.KeyValue(t.Context(), subjects.BucketKeys)
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := seal.Unlock(t.Context(), seal.From{File: s.MasterKey()}, keys)
	if err != nil {
		t.Fatal(err)
	}
	owner, ciphertext := sealedOf(t, js, a.id)
	if got, err := sealer.Open(t.Context(), owner, ciphertext); err != nil || got["PLANTED"] != p["variable"] {
		t.Fatalf("what is sealed opens as %v, %v", got, err)
	}
	a.destroy()
	a.wait("destroyed")
	a.gone()
	_, ciphertext = sealedOf(t, js, a.id) // the log keeps it
	eventually(t, "its key is gone", func(ctx context.Context) (bool, string, error) {
		_, err := sealer.Open(ctx, owner, ciphertext)
		return errors.Is(err, seal.ErrDestroyed), fmt.Sprint(err), nil
	})
	if _, _, err := sealer.Seal(t.Context(), owner, map[string]string{"A": "b"}); !errors.Is(err, seal.ErrDestroyed) {
		t.Errorf("a key was made in place of the destroyed one: %v", err)
	}
	look()
}

// inFiles looks at every file of the platform, logs among them, but at those that hold
// secrets for their owner; there must be that many logs at least.
func (p planted) inFiles(t *testing.T, s *stack.Stack, least int) {
	t.Helper()
	files, logs := 0, 0
	for path, content := range filesOf(t, s) {
		files++
		if filepath.Ext(path) == ".log" && len(content) > 0 {
			logs++
		}
		if filepath.Base(path) != "credentials.json" {
			p.in(t, path, content)
		}
	}
	if files < 20 || logs < least {
		t.Errorf("only %d files, %d of them logs, were looked at", files, logs)
	}
}

// filesOf reads the platform's files, but those that Podman needs to run containers.
func filesOf(t *testing.T, s *stack.Stack) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(s.Dir, func(path string, entry os.DirEntry, err error) error {
		switch {
		case os.IsNotExist(err):
			return nil
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == "podman":
			return filepath.SkipDir
		case !entry.Type().IsRegular():
			return nil
		}
		content, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			return nil
		}
		files[path] = content
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
