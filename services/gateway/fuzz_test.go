package gateway_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	adminv1 "github.com/slipway-paas/slipway/gen/slipway/admin/v1"
	deployv1 "github.com/slipway-paas/slipway/gen/slipway/deploy/v1"
	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/services/gateway"
)

// answersWithin is how long any answer may take before it counts as a hang.
const answersWithin = 10 * time.Second

// wire is a gateway whose clients need no ports: what is sent is sent as it is.
type wire struct {
	*stage
	listener *bufconn.Listener
	owned    string
}

func beginOnWire(f *testing.F) *wire {
	f.Helper()
	w := &wire{listener: bufconn.Listen(1 << 20)}
	w.stage = begin(f, func(_ *gateway.Config, d *gateway.Deps) { d.Listener = w.listener })
	w.owned = w.requested(f)
	w.happen(f, w.owned, &deploymentv1.StopRequested{}, &deploymentv1.DeploymentStopped{})
	return w
}

// oneLine leaves out what would end a header's line.
var oneLine = strings.NewReplacer("\r", "", "\n", "", "\x00", "")

// send writes one request and returns its answer, whose body is still to be read.
func (w *wire) send(t *testing.T, method, target string, body []byte, headers ...string) (*http.Response, net.Conn) {
	t.Helper()
	conn, err := w.listener.Dial()
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(answersWithin)); err != nil {
		t.Fatal(err)
	}
	request := fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %s\r\nConnection: close\r\n", method, target, adminToken)
	for _, h := range headers {
		request = fmt.Appendf(request, "%s\r\n", oneLine.Replace(h))
	}
	request = fmt.Appendf(request, "Content-Length: %d\r\n\r\n%s", len(body), body)
	go func() {
		// The gateway may answer and leave before it has read everything.
		_, _ = conn.Write(request)
	}()
	answer, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s %q got no answer: %v", method, target, err)
	}
	return answer, conn
}

// endpoints are all that the schema annotates, and the ones that it cannot.
func endpoints(f *testing.F) []string {
	f.Helper()
	all := []string{"GET /api/v1/health", "GET /openapi.json", "GET /metrics", "POST /api/deploy/apps/{id}/events", "PUT /{id}"}
	for _, service := range []protoreflect.ServiceDescriptor{
		deployv1.File_slipway_deploy_v1_deploy_proto.Services().ByName("DeployService"),
		adminv1.File_slipway_admin_v1_admin_proto.Services().ByName("AdminService"),
	} {
		for i := range service.Methods().Len() {
			rule, _ := proto.GetExtension(service.Methods().Get(i).Options(), annotations.E_Http).(*annotations.HttpRule)
			switch p := rule.GetPattern().(type) {
			case *annotations.HttpRule_Get:
				all = append(all, "GET "+p.Get)
			case *annotations.HttpRule_Post:
				all = append(all, "POST "+p.Post)
			case *annotations.HttpRule_Delete:
				all = append(all, "DELETE "+p.Delete)
			}
		}
	}
	if len(all) < 20 {
		f.Fatalf("only %d endpoints are known: %v", len(all), all)
	}
	return all
}

// FuzzEveryEndpoint: whatever is sent to an endpoint, its answer comes, is no fault of
// ours, and is one of the shapes that the API promises.
func FuzzEveryEndpoint(f *testing.F) {
	w := beginOnWire(f)
	all := endpoints(f)
	const good = `{"subdomain":"my-app","image":"ghcr.io/a/b:1","tier":"buddo-starter","port":8080,"custom_domain":null,"env_vars":{"A":"1"}}`
	for n := range all {
		f.Add(uint8(n), "", "", "application/json", []byte(good))
		f.Add(uint8(n), "%zz/../\x00", "accept_differences=maybe&id=a&id=b", "application/json; charset=utf-16", []byte(`{"id":1}`))
	}
	for _, body := range []string{
		"", "null", "[]", `{"port":1e400}`, `{"port":-0}`, `{"env_vars":{"A":"\ud800"}}`, `{"env_vars":{"":""}}`, "{\"subdomain\":\"\\u0000\"}",
		strings.Repeat("[", 100_000), strings.Repeat(`{"a":`, 10_000), `{"custom_domain":{"value":"a"}}`, "\xef\xbb\xbf{}",
	} {
		f.Add(uint8(5), "a", "%=%&;", "application/json", []byte(body))
	}
	f.Fuzz(func(t *testing.T, n uint8, id, query, contentType string, body []byte) {
		method, path, _ := strings.Cut(all[int(n)%len(all)], " ")
		if id == "" {
			id = w.owned
		}
		target := path
		if before, rest, found := strings.Cut(path, "{"); found {
			_, after, _ := strings.Cut(rest, "}")
			target = before + url.PathEscape(id) + after
		}
		if query != "" {
			target += "?" + url.PathEscape(query)
		}
		answer, conn := w.send(t, method, target, body, "Content-Type: "+contentType, "X-Request-Id: "+id, "Idempotency-Key: "+id)
		defer conn.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatalf("%s %q: half an answer: %v", method, target, err)
		}
		shaped(t, method+" "+target, answer, text)
	})
}

// shaped checks an answer against what every answer must be.
func shaped(t *testing.T, request string, answer *http.Response, body []byte) {
	t.Helper()
	if answer.StatusCode >= 500 {
		t.Fatalf("%q was answered %d: %s", request, answer.StatusCode, body)
	}
	if answer.StatusCode < 400 {
		return
	}
	if kind := answer.Header.Get("Content-Type"); kind != "application/problem+json" {
		// What is no HTTP is refused before it reaches us.
		if answer.StatusCode == http.StatusBadRequest && answer.Header.Get("X-Request-Id") == "" {
			return
		}
		t.Fatalf("%q was answered %d as %q: %s", request, answer.StatusCode, kind, body)
	}
	var said struct{ Error, Message, Code string }
	if err := json.Unmarshal(body, &said); err != nil || said.Message == "" || said.Code == "" {
		t.Fatalf("%q was answered %d with %s, %v", request, answer.StatusCode, body, err)
	}
}

// FuzzEveryLastEventID: wherever a client says that it was, it is refused in words or
// gets what came after that, and never what it has seen.
func FuzzEveryLastEventID(f *testing.F) {
	w := beginOnWire(f)
	for _, id := range []string{"", "0", "1", "2", "3", "4", "-1", "+1", "1.0", "1e3", "0x1", " 2 ", "２", "18446744073709551615", "18446744073709551616",
		"9223372036854775807", "9223372036854775808", "\xff", "1\t2", strings.Repeat("9", 5000)} {
		f.Add(id, id, true)
		f.Add(id, "2", false)
	}
	f.Fuzz(func(t *testing.T, header, query string, asHeader bool) {
		target := "/api/deploy/apps/" + w.owned + "/events"
		var headers []string
		if asHeader {
			headers = append(headers, "Last-Event-ID: "+header)
		}
		if query != "" {
			target += "?last_event_id=" + url.QueryEscape(query)
		}
		answer, conn := w.send(t, http.MethodGet, target, nil, headers...)
		defer conn.Close()
		if answer.StatusCode != http.StatusOK {
			body, err := io.ReadAll(answer.Body)
			if err != nil {
				t.Fatal(err)
			}
			shaped(t, target, answer, body)
			return
		}
		said := strings.Trim(oneLine.Replace(header), " \t")
		if !asHeader || said == "" {
			said = query
		}
		after, err := strconv.ParseUint(said, 10, 64)
		if err != nil && said != "" {
			t.Fatalf("Last-Event-ID %q was taken", said)
		}
		lines := bufio.NewReader(answer.Body)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				t.Fatalf("after %q the stream never caught up: %v", said, err)
			}
			if id, found := bytes.CutPrefix(line, []byte("id: ")); found {
				sequence, err := strconv.ParseUint(string(bytes.TrimSpace(id)), 10, 64)
				if err != nil || sequence <= after {
					t.Fatalf("after %q comes %s", said, line)
				}
			}
			if bytes.HasPrefix(line, []byte(": caught up")) {
				return
			}
		}
	})
}
