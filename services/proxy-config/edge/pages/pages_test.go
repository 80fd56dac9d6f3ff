package pages

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func writer(t *testing.T) *Writer {
	t.Helper()
	w, err := NewWriter()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func get(t *testing.T, p Page, host string, accept ...string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	for _, a := range accept {
		req.Header.Add("Accept", a)
	}
	rec := httptest.NewRecorder()
	if err := writer(t).Write(rec, req, host, p); err != nil {
		t.Fatal(err)
	}
	return rec
}

func TestTheAcceptHeaderChoosesTheForm(t *testing.T) {
	t.Parallel()
	const html, problem = "text/html; charset=utf-8", "application/problem+json"
	for name, c := range map[string]struct {
		accept []string
		want   string
	}{
		"nothing asked for":              {nil, html},
		"anything":                       {[]string{"*/*"}, html},
		"a browser":                      {[]string{"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"}, html},
		"json":                           {[]string{"application/json"}, problem},
		"problem details":                {[]string{"application/problem+json"}, problem},
		"any application type":           {[]string{"application/*"}, problem},
		"json over html":                 {[]string{"text/html;q=0.5, application/json"}, problem},
		"html over json":                 {[]string{"application/json;q=0.5, text/html"}, html},
		"json by name, then anything":    {[]string{"application/json, text/plain, */*;q=0.1"}, problem},
		"no html at all":                 {[]string{"text/html;q=0, */*"}, problem},
		"json in a second header line":   {[]string{"image/png", "application/json"}, problem},
		"only what we do not have":       {[]string{"image/png"}, html},
		"a header that cannot be parsed": {[]string{";;,//"}, html},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := get(t, Down(), "a.test", c.accept...).Header().Get("Content-Type"); got != c.want {
				t.Errorf("Accept %q got %s, want %s", c.accept, got, c.want)
			}
		})
	}
}

func TestAProgramGetsEveryMemberOfTheProblem(t *testing.T) {
	t.Parallel()
	rec := get(t, Starting(), "shop.test", "application/json")
	var got map[string]any
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	const sentence = "The app at shop.test is starting and will answer in a moment."
	want := map[string]any{
		"type": "about:blank", "title": "Service Unavailable", "status": 503.0, "code": "app_starting",
		"detail": sentence, "error": sentence, "message": sentence,
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s = %v, want %v", k, got[k], v)
		}
	}
	if rec.Code != 503 || rec.Header().Get("Retry-After") != "2" || rec.Header().Get("Vary") != "Accept" {
		t.Errorf("status %d, headers %v", rec.Code, rec.Header())
	}
}

func TestThePageEscapesTheHostAndNeedsNothingFromElsewhere(t *testing.T) {
	t.Parallel()
	rec := get(t, UnknownHost(), "<script>alert(1)</script>")
	body := rec.Body.String()
	if strings.Contains(body, "<script") || !strings.Contains(body, "&lt;script&gt;") {
		t.Errorf("the host is not escaped:\n%s", body)
	}
	for _, part := range []string{"http:", "https:", "src=", "<link", "url("} {
		if strings.Contains(body, part) {
			t.Errorf("the page refers to something outside: %s", part)
		}
	}
	if rec.Code != 404 || rec.Header().Get("Retry-After") != "" || rec.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("status %d, headers %v", rec.Code, rec.Header())
	}
}

func TestThePolicyAllowsThePagesOwnStyleAndNothingElse(t *testing.T) {
	t.Parallel()
	rec := get(t, Down(), "a.test")
	_, rest, _ := strings.Cut(rec.Body.String(), "<style>")
	style, _, found := strings.Cut(rest, "</style>")
	sum := sha256.Sum256([]byte(style))
	want := "style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	policy := rec.Header().Get("Content-Security-Policy")
	if !found || !strings.Contains(policy, want) || !strings.Contains(policy, "default-src 'none'") {
		t.Errorf("policy %q, want %q in it", policy, want)
	}
}

func TestAHeadRequestGetsNoBody(t *testing.T) {
	t.Parallel()
	req := httptest.NewRequest(http.MethodHead, "/", nil)
	rec := httptest.NewRecorder()
	if err := writer(t).Write(rec, req, "a.test", Stopped()); err != nil {
		t.Fatal(err)
	}
	if rec.Body.Len() != 0 || rec.Code != 503 || rec.Header().Get("Retry-After") != "60" {
		t.Errorf("status %d, %d bytes, headers %v", rec.Code, rec.Body.Len(), rec.Header())
	}
}
