package cloudflare

import (
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"time"
)

// prefix is the path of the API's base.
const prefix = "/client/v4"

type apiError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

type resultInfo struct {
	Page       int `json:"page"`
	PerPage    int `json:"per_page"`
	Count      int `json:"count"`
	TotalCount int `json:"total_count"`
	TotalPages int `json:"total_pages"`
}

// answer is an envelope with its status.
type answer struct {
	status int
	Result any         `json:"result"`
	OK     bool        `json:"success"`
	Errors []apiError  `json:"errors"`
	Notes  []apiError  `json:"messages"`
	Info   *resultInfo `json:"result_info,omitempty"`
}

func good(result any) answer { return answer{status: http.StatusOK, Result: result, OK: true} }

func bad(status, code int, format string, args ...any) answer {
	return answer{status: status, Errors: []apiError{{code, fmt.Sprintf(format, args...)}}}
}

func (a answer) write(w http.ResponseWriter) {
	if a.Errors == nil {
		a.Errors = []apiError{}
	}
	if a.Notes == nil {
		a.Notes = []apiError{}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.status)
	_ = json.NewEncoder(w).Encode(a) // whoever has gone away is not told
}

// ServeHTTP is the API, under /client/v4.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	latency, fault := s.latency, Fault{}
	if s.fault != nil {
		fault = s.fault(r)
	}
	limited, after := s.limited()
	s.mu.Unlock()
	if latency > 0 {
		select {
		case <-r.Context().Done():
		case <-time.After(latency):
		}
	}
	out := httptest.NewRecorder()
	broken := fault.Status != 0 || fault.Garbage || fault.Lost
	switch {
	case limited:
		out.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(after.Seconds()))))
		bad(http.StatusTooManyRequests, 971, "Please wait and consider throttling your request speed").write(out)
	case broken && !fault.Done:
	default:
		s.mux.ServeHTTP(out, r)
	}
	if broken && !limited {
		out = httptest.NewRecorder()
		if fault.Lost {
			s.count(0)
			panic(http.ErrAbortHandler) // closes the connection
		}
		if fault.RetryAfter != "" {
			out.Header().Set("Retry-After", fault.RetryAfter)
		}
		switch {
		case fault.Garbage:
			out.Header().Set("Content-Type", "text/html")
			_, _ = out.WriteString("<html>Just a moment...</html>")
		case fault.Status == http.StatusTooManyRequests:
			bad(fault.Status, 971, "Please wait and consider throttling your request speed").write(out)
		default:
			// What stands before the API answers in its own way.
			out.Header().Set("Content-Type", "text/plain")
			out.WriteHeader(fault.Status)
			_, _ = out.WriteString("error code: " + strconv.Itoa(fault.Status))
		}
	}
	s.count(out.Code)
	for name, values := range out.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(out.Code)
	_, _ = w.Write(out.Body.Bytes())
}

func (s *Server) count(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[status]++
}

// limited counts a request, and says whether it is one too many and when the next is not.
func (s *Server) limited() (bool, time.Duration) {
	if s.limit == 0 {
		return false, 0
	}
	now := time.Now()
	for len(s.recent) > 0 && now.Sub(s.recent[0]) > s.window {
		s.recent = s.recent[1:]
	}
	if len(s.recent) >= s.limit {
		return true, s.window - now.Sub(s.recent[0])
	}
	s.recent = append(s.recent, now)
	return false, 0
}

func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	handle := func(pattern string, h func(*http.Request) answer) {
		method, path, _ := strings.Cut(pattern, " ")
		mux.HandleFunc(method+" "+prefix+path, func(w http.ResponseWriter, r *http.Request) {
			if refusal, ok := s.authenticate(r); !ok {
				refusal.write(w)
				return
			}
			s.mu.Lock()
			a := h(r)
			s.mu.Unlock()
			a.write(w)
		})
	}
	handle("GET /zones", s.listZones)
	handle("GET /zones/{zone}", s.inZone(s.getZone))
	handle("GET /zones/{zone}/dns_records", s.inZone(s.listRecords))
	handle("POST /zones/{zone}/dns_records", s.inZone(s.createRecord))
	handle("GET /zones/{zone}/dns_records/{id}", s.inZone(s.getRecord))
	handle("PATCH /zones/{zone}/dns_records/{id}", s.inZone(s.patchRecord))
	handle("PUT /zones/{zone}/dns_records/{id}", s.inZone(s.putRecord))
	handle("DELETE /zones/{zone}/dns_records/{id}", s.inZone(s.deleteRecord))
	handle("GET /accounts/{account}/cfd_tunnel", s.inAccount(s.listTunnels))
	handle("POST /accounts/{account}/cfd_tunnel", s.inAccount(s.createTunnel))
	handle("GET /accounts/{account}/cfd_tunnel/{id}", s.ofTunnel(s.getTunnel))
	handle("DELETE /accounts/{account}/cfd_tunnel/{id}", s.ofTunnel(s.deleteTunnel))
	handle("GET /accounts/{account}/cfd_tunnel/{id}/token", s.ofTunnel(s.tunnelToken))
	handle("GET /accounts/{account}/cfd_tunnel/{id}/configurations", s.ofTunnel(s.getRules))
	handle("PUT /accounts/{account}/cfd_tunnel/{id}/configurations", s.ofTunnel(s.putRules))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		bad(http.StatusBadRequest, 7000, "No route for that URI").write(w)
	})
	return mux
}

func (s *Server) authenticate(r *http.Request) (answer, bool) {
	token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case r.Header.Get("Authorization") == "":
		return bad(http.StatusBadRequest, 9106, "Missing X-Auth-Key, X-Auth-Email or Authorization headers"), false
	case !bearer:
		return bad(http.StatusBadRequest, 6003, "Invalid request headers"), false
	case subtle.ConstantTimeCompare([]byte(token), []byte(s.token)) != 1 && strings.HasSuffix(r.URL.Path, "/zones"):
		return bad(http.StatusForbidden, 9109, "Invalid access token"), false
	case subtle.ConstantTimeCompare([]byte(token), []byte(s.token)) != 1:
		return bad(http.StatusForbidden, 10000, "Authentication error"), false
	}
	return answer{}, true
}

func unroutable(r *http.Request) answer {
	return bad(http.StatusNotFound, 7003, "Could not route to %s, perhaps your object identifier is invalid?", r.URL.Path)
}

func (s *Server) inZone(h func(r *http.Request, apex string) answer) func(*http.Request) answer {
	return func(r *http.Request) answer {
		for _, apex := range s.zones {
			if zoneID(apex) == r.PathValue("zone") {
				return h(r, apex)
			}
		}
		return unroutable(r)
	}
}

func (s *Server) inAccount(h func(*http.Request) answer) func(*http.Request) answer {
	return func(r *http.Request) answer {
		if r.PathValue("account") != s.account {
			return unroutable(r)
		}
		return h(r)
	}
}

// paged is one page of all, by the request's page and per_page.
func paged[T any](r *http.Request, all []T, usual, least, most, clamp int) answer {
	page, perPage := 1, usual
	for name, value := range map[string]*int{"page": &page, "per_page": &perPage} {
		text := r.URL.Query().Get(name)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return bad(http.StatusBadRequest, 9008, "Invalid %s", name)
		}
		*value = n
	}
	if perPage < least || perPage > most {
		return bad(http.StatusBadRequest, 9008, "per_page must be between %d and %d", least, most)
	}
	perPage = min(perPage, clamp)
	from := min((page-1)*perPage, len(all))
	shown := all[from:min(from+perPage, len(all))]
	if shown == nil {
		shown = []T{}
	}
	a := good(shown)
	a.Info = &resultInfo{Page: page, PerPage: perPage, Count: len(shown), TotalCount: len(all), TotalPages: (len(all) + perPage - 1) / perPage}
	return a
}

// Challtestsrv is for Server.OnTXT: it copies texts to the challtestsrv whose management
// interface is at base (http://host:port), for Pebble to see.
func Challtestsrv(base string, client *http.Client) func(name string, values []string) {
	post := func(path string, body map[string]string) {
		text, err := json.Marshal(body)
		if err != nil {
			panic(err) // of strings there is no error
		}
		res, err := client.Post(base+path, "application/json", strings.NewReader(string(text)))
		if err == nil {
			_ = res.Body.Close()
		}
	}
	return func(name string, values []string) {
		post("/clear-txt", map[string]string{"host": name + "."})
		for _, v := range values {
			post("/set-txt", map[string]string{"host": name + ".", "value": v})
		}
	}
}
