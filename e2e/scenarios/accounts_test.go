package scenarios

import (
	"crypto/rand"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/e2e/stack"
)

// person is somebody with an account, who is logged in.
type person struct {
	*client.Client
	email, id string
}

const personsPassword = "correct horse battery"

// anonymous calls without any credential.
func anonymous(s *stack.Stack) *client.Client { return &client.Client{API: s.API} }

// newPerson registers somebody whom no other story knows.
func newPerson(t *testing.T, s *stack.Stack) *person {
	t.Helper()
	email := strings.ToLower(rand.Text()[:12]) + "@example.com"
	answer := expect(t, anonymous(s), http.StatusOK, http.MethodPost, "/api/v1/auth/register",
		map[string]any{"email": email, "password": personsPassword, "name": "Somebody"})
	user, token := answer.Object("user"), answer.JSON()["token"].(string)
	if user["email"] != email || user["name"] != "Somebody" || user["role"] == nil || user["created_at"] == nil || user["updated_at"] == nil || !strings.HasPrefix(token, "eyJ") {
		t.Fatalf("registered as %s", answer)
	}
	id, _ := user["id"].(string)
	return &person{Client: &client.Client{API: s.API, Token: token}, email: email, id: id}
}

// in is the person acting for an organization.
func (p *person) in(org string) *client.Client {
	return &client.Client{API: p.API, Token: p.Token, Header: map[string]string{"Slipway-Org": org}}
}

// within calls until the status is the wanted one, and fails when that takes longer.
func within(t *testing.T, limit time.Duration, c *client.Client, status int, path string) {
	t.Helper()
	for begun := time.Now(); ; {
		answer := call(t, c, http.MethodGet, path, nil)
		if answer.Status == status {
			return
		}
		if took := time.Since(begun); took > limit {
			t.Fatalf("%v later %s still answers %s, want %d", took, path, answer, status)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestAPersonsAccount(t *testing.T) {
	t.Parallel()
	s := platform(t)
	p := newPerson(t, s)
	me := expect(t, p.Client, http.StatusOK, http.MethodGet, "/api/v1/auth/me", nil).Object("user")
	if me["id"] != p.id || me["email"] != p.email {
		t.Errorf("me is %v", me)
	}
	// The other dialect is in front of the same account.
	if other := expect(t, p.Client, http.StatusOK, http.MethodGet, "/api/auth/me", nil).Object("user"); other["id"] != p.id {
		t.Errorf("/api/auth/me is %v", other)
	}
	for _, path := range []string{"/api/v1/auth/register", "/api/auth/register"} {
		body := map[string]any{"email": strings.ToUpper(p.email), "password": personsPassword, "name": "x"}
		if path == "/api/auth/register" {
			delete(body, "name")
			body["username"] = "x"
		}
		answer := expect(t, anonymous(s), http.StatusUnprocessableEntity, http.MethodPost, path, body)
		isProblem(t, answer)
	}
	wrong := expect(t, anonymous(s), http.StatusUnauthorized, http.MethodPost, "/api/v1/auth/login", map[string]any{"email": p.email, "password": "wrong password"})
	nobody := expect(t, anonymous(s), http.StatusUnauthorized, http.MethodPost, "/api/v1/auth/login", map[string]any{"email": "x" + p.email, "password": "wrong password"})
	if string(wrong.Body) != string(nobody.Body) {
		t.Errorf("a login that fails tells of accounts: %s and %s", wrong, nobody)
	}
	second := expect(t, anonymous(s), http.StatusOK, http.MethodPost, "/api/auth/login", map[string]any{"email": p.email, "password": personsPassword}).JSON()["token"].(string)

	// A login's token is no access token: the deploy dialect refuses it.
	isProblem(t, expect(t, p.Client, http.StatusUnauthorized, http.MethodGet, "/api/deploy/apps", nil))

	changed := expect(t, p.Client, http.StatusOK, http.MethodPost, "/api/v1/auth/password",
		map[string]any{"current_password": personsPassword, "new_password": "another horse battery"})
	for _, old := range []string{p.Token, second} {
		within(t, time.Second, &client.Client{API: s.API, Token: old}, http.StatusUnauthorized, "/api/v1/auth/me")
	}
	p.Token = changed.JSON()["token"].(string)
	expect(t, p.Client, http.StatusOK, http.MethodGet, "/api/v1/auth/me", nil)
	expect(t, p.Client, http.StatusOK, http.MethodPost, "/api/v1/auth/logout", nil)
	within(t, time.Second, p.Client, http.StatusUnauthorized, "/api/v1/auth/me")
}

func TestAnOrganizationItsMembersAndItsKeys(t *testing.T) {
	t.Parallel()
	s := platform(t)
	ada, bob := newPerson(t, s), newPerson(t, s)
	org := expect(t, ada.Client, http.StatusCreated, http.MethodPost, "/api/v1/orgs", map[string]any{"name": "Acme"}).Object("org")
	id, _ := org["id"].(string)
	if org["role"] != "owner" || org["name"] != "Acme" || id == "" {
		t.Fatalf("made %v", org)
	}
	here := "/api/v1/orgs/" + id
	isProblem(t, expect(t, bob.Client, http.StatusNotFound, http.MethodGet, here, nil))
	isProblem(t, expect(t, bob.in(id), http.StatusForbidden, http.MethodGet, "/api/v1/api-keys", nil))

	expect(t, ada.Client, http.StatusCreated, http.MethodPost, here+"/members", map[string]any{"email": bob.email, "role": "member"})
	if invitations := expect(t, bob.Client, http.StatusOK, http.MethodGet, "/api/v1/orgs", nil).List("invitations"); len(invitations) != 1 || invitations[0]["id"] != id {
		t.Fatalf("bob is invited to %v", invitations)
	}
	expect(t, bob.Client, http.StatusOK, http.MethodPost, here+"/join", nil)
	expect(t, bob.in(id), http.StatusForbidden, http.MethodGet, "/api/v1/api-keys", nil)
	expect(t, ada.Client, http.StatusOK, http.MethodPut, here+"/members/"+bob.id, map[string]any{"role": "admin"})

	made := expect(t, bob.in(id), http.StatusCreated, http.MethodPost, "/api/v1/api-keys", map[string]any{"name": "ci", "scopes": []string{"deploy:read"}})
	key, _ := made.JSON()["key"].(string)
	withKey := &client.Client{API: s.API, Header: map[string]string{"x-api-key": key}}
	if me := expect(t, withKey, http.StatusOK, http.MethodGet, "/api/v1/auth/me", nil).Object("user"); me["id"] != bob.id {
		t.Errorf("the key speaks for %v", me)
	}
	list := expect(t, ada.in(id), http.StatusOK, http.MethodGet, "/api/v1/api-keys", nil)
	keys := list.List("api_keys")
	if len(keys) != 1 || keys[0]["name"] != "ci" || !strings.HasPrefix(key, keys[0]["prefix"].(string)) || strings.Contains(string(list.Body), key) {
		t.Errorf("the keys are %s", list)
	}
	expect(t, ada.in(id), http.StatusOK, http.MethodDelete, "/api/v1/api-keys/"+keys[0]["id"].(string), nil)
	within(t, time.Second, withKey, http.StatusUnauthorized, "/api/v1/auth/me")

	second, _ := expect(t, bob.in(id), http.StatusCreated, http.MethodPost, "/api/v1/api-keys",
		map[string]any{"name": "cd", "scopes": []string{"deploy:read"}}).JSON()["key"].(string)
	withKey.Header["x-api-key"] = second
	expect(t, withKey, http.StatusOK, http.MethodGet, "/api/v1/auth/me", nil)
	expect(t, ada.Client, http.StatusOK, http.MethodDelete, here+"/members/"+bob.id, nil)
	within(t, time.Second, withKey, http.StatusUnauthorized, "/api/v1/auth/me")
	within(t, time.Second, bob.in(id), http.StatusForbidden, "/api/v1/api-keys")
	isProblem(t, expect(t, ada.Client, http.StatusUnprocessableEntity, http.MethodDelete, here+"/members/"+ada.id, nil))
}
