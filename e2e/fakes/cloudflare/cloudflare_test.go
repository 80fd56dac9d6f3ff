package cloudflare_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	fake "github.com/slipway-paas/slipway/e2e/fakes/cloudflare"
	"github.com/slipway-paas/slipway/services/dns/cloudflare"
	"github.com/slipway-paas/slipway/services/dns/zone"
)

// said is an envelope as a client reads it.
type said struct {
	status  int
	after   string
	Success bool
	Errors  []struct{ Code int }
	Result  json.RawMessage
	Info    struct {
		Page       int `json:"page"`
		PerPage    int `json:"per_page"`
		Count      int `json:"count"`
		TotalCount int `json:"total_count"`
	} `json:"result_info"`
}

func (s said) code() int {
	if len(s.Errors) == 0 {
		return 0
	}
	return s.Errors[0].Code
}

func call(t *testing.T, url, method, path, token, body string) said {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	out := said{status: res.StatusCode, after: res.Header.Get("Retry-After")}
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatalf("%s %s: %q is no envelope", method, path, text)
	}
	return out
}

const good = "Bearer fake-token"

func zoneOf(t *testing.T, url string) string {
	t.Helper()
	var zones []struct{ ID string }
	if err := json.Unmarshal(call(t, url, "GET", "/zones", good, "").Result, &zones); err != nil || len(zones) == 0 {
		t.Fatalf("no zone, %v", err)
	}
	return "/zones/" + zones[0].ID + "/dns_records"
}

func TestItRefusesWithTheRealOnesCodes(t *testing.T) {
	t.Parallel()
	_, url := serve(t, fake.Options{Zones: []string{"example.test"}})
	records := zoneOf(t, url)
	made := call(t, url, "POST", records, good, `{"type":"A","name":"a","content":"192.0.2.1","ttl":1}`)
	var record fake.Record
	if err := json.Unmarshal(made.Result, &record); err != nil || record.Name != "a.example.test" {
		t.Fatalf("a name without the zone's: %+v, %v", record, err)
	}
	for _, c := range []struct {
		method, path, token, body string
		status, code              int
	}{
		{"GET", "/zones", "", "", 400, 9106},
		{"GET", "/zones", "Basic x", "", 400, 6003},
		{"GET", "/zones", "Bearer wrong", "", 403, 9109},
		{"GET", records, "Bearer wrong", "", 403, 10000},
		{"GET", "/zones?per_page=51", good, "", 400, 9008},
		{"GET", "/zones/0123/dns_records", good, "", 404, 7003},
		{"GET", "/nowhere", good, "", 400, 7000},
		{"POST", records, good, `{"type":"A","name":"a.example.test","content":"192.0.2.1","ttl":1}`, 400, 81058},
		{"POST", records, good, `{"type":"CNAME","name":"a.example.test","content":"b.test","ttl":1}`, 400, 81053},
		{"POST", records, good, `{"type":"A","name":"b","content":"x","ttl":1}`, 400, 9005},
		{"POST", records, good, `{"type":"AAAA","name":"b","content":"192.0.2.1","ttl":1}`, 400, 9006},
		{"POST", records, good, `{"type":"CNAME","name":"b","content":"b.example.test","ttl":1}`, 400, 9007},
		{"POST", records, good, `{"type":"TXT","name":"b","content":"x","proxied":true}`, 400, 9004},
		{"POST", records, good, `{"type":"A","name":"b","content":"192.0.2.1","ttl":59}`, 400, 9021},
		{"POST", records, good, `{"type":"A","name":"b c","content":"192.0.2.1"}`, 400, 9000},
		{"POST", records, good, `{"type":"A","name":"b","content":"192.0.2.1","comment":"` + strings.Repeat("x", 101) + `"}`, 400, 9313},
		{"POST", records, good, `{`, 400, 9207},
		{"DELETE", records + "/0123", good, "", 404, 81044},
		{"PATCH", records + "/0123", good, "{}", 404, 81044},
		{"GET", "/accounts/x/cfd_tunnel", good, "", 404, 7003},
	} {
		if got := call(t, url, c.method, c.path, c.token, c.body); got.status != c.status || got.code() != c.code || got.Success {
			t.Errorf("%s %s %s: %d %d, want %d %d", c.method, c.path, c.body, got.status, got.code(), c.status, c.code)
		}
	}
}

func TestItsPagesAreTheRealOnes(t *testing.T) {
	t.Parallel()
	api, url := serve(t, fake.Options{Zones: []string{"example.test"}, MostPerPage: 5})
	for i := range 7 {
		api.Put("example.test", fake.Record{Name: fmt.Sprintf("n%d.example.test", i), Type: "A", Content: "192.0.2.1"})
	}
	records := zoneOf(t, url)
	for page, want := range map[int]int{1: 5, 2: 2, 3: 0} {
		got := call(t, url, "GET", fmt.Sprintf("%s?page=%d&per_page=100", records, page), good, "")
		if got.Info.Count != want || got.Info.PerPage != 5 || got.Info.TotalCount != 7 || string(got.Result) == "null" {
			t.Errorf("page %d: %+v %s", page, got.Info, got.Result)
		}
	}
	if got := call(t, url, "GET", records+"?name.exact=n3.example.test", good, ""); got.Info.TotalCount != 1 {
		t.Errorf("filtered: %+v", got.Info)
	}
}

func TestReadsLagBehindWrites(t *testing.T) {
	t.Parallel()
	api, url := serve(t, fake.Options{Zones: []string{"example.test"}})
	records := zoneOf(t, url)
	api.Lag(time.Hour)
	body := `{"type":"A","name":"a","content":"192.0.2.1","ttl":1}`
	if got := call(t, url, "POST", records, good, body); !got.Success {
		t.Fatal(got)
	}
	if got := call(t, url, "GET", records, good, ""); got.Info.TotalCount != 0 {
		t.Error("the read sees the write")
	}
	if got := call(t, url, "POST", records, good, body); got.code() != 81058 {
		t.Errorf("but a second write does: %d", got.code())
	}
	api.Lag(0)
	if got := call(t, url, "GET", records, good, ""); got.Info.TotalCount != 1 {
		t.Error("it is never seen")
	}
}

func TestItLimitsAndFailsOnDemand(t *testing.T) {
	t.Parallel()
	api, url := serve(t, fake.Options{Zones: []string{"example.test"}})
	api.Limit(2, time.Minute)
	for i, want := range []int{200, 200, 429} {
		got := call(t, url, "GET", "/zones", good, "")
		if got.status != want || want == 429 && got.after == "" {
			t.Errorf("request %d: %d, Retry-After %q", i, got.status, got.after)
		}
	}
	api.Limit(0, 0)
	api.Fail(func(*http.Request) fake.Fault { return fake.Fault{Lost: true, Done: true} })
	req, err := http.NewRequestWithContext(t.Context(), "POST", url+"/zones/x/dns_records", strings.NewReader(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	if res, err := http.DefaultClient.Do(req); err == nil {
		_ = res.Body.Close()
		t.Error("a lost answer came")
	}
	if api.Answers()[0] == 0 || api.Answers()[429] != 1 {
		t.Errorf("counted %v", api.Answers())
	}
}

func TestTextsAreCopiedForPebble(t *testing.T) {
	t.Parallel()
	var got []string
	management := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = append(got, r.URL.Path+" "+string(body))
	}))
	t.Cleanup(management.Close)
	api, url := serve(t, fake.Options{Zones: []string{"example.test"}})
	api.OnTXT(fake.Challtestsrv(management.URL, management.Client()))
	z, err := open(t, cloudflare.Config{Token: "fake-token", Owner: "o", URL: url}).Zones(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	made, err := z[0].Create(t.Context(), zone.Record{Name: "_acme-challenge.example.test", Type: zone.TXT, Content: "one", TTL: 60, Challenge: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := z[0].Delete(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	clearing := `/clear-txt {"host":"_acme-challenge.example.test."}`
	want := []string{clearing, `/set-txt {"host":"_acme-challenge.example.test.","value":"one"}`, clearing}
	if !slices.Equal(got, want) {
		t.Errorf("told challtestsrv %q", got)
	}
}
