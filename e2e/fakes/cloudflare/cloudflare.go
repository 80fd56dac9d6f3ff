// Package cloudflare is a fake of Cloudflare's v4 API, as far as DNS and tunnels go: the
// same envelope, paging, error codes and rate limit, reads that lag behind writes, and
// outages on demand. It is told everything by its methods; over HTTP it is only the API.
package cloudflare

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Options of an account.
type Options struct {
	// Token is the one that is good; "fake-token" when empty.
	Token string
	// Zones are the apexes that it holds.
	Zones []string
	// MostPerPage clamps the pages of records; the real one's limit when 0.
	MostPerPage int
}

// Record is a DNS record as the API shows it.
type Record struct {
	ID         string    `json:"id"`
	ZoneID     string    `json:"zone_id"`
	ZoneName   string    `json:"zone_name"`
	Name       string    `json:"name"`
	Type       string    `json:"type"`
	Content    string    `json:"content"`
	TTL        int       `json:"ttl"`
	Proxied    bool      `json:"proxied"`
	Proxiable  bool      `json:"proxiable"`
	Comment    *string   `json:"comment"`
	Tags       []string  `json:"tags"`
	CreatedOn  time.Time `json:"created_on"`
	ModifiedOn time.Time `json:"modified_on"`
}

// Said is the record's comment, or nothing.
func (r Record) Said() string {
	if r.Comment == nil {
		return ""
	}
	return *r.Comment
}

// Fault is how one request goes wrong; the zero Fault is not at all.
type Fault struct {
	// Status is answered instead, with RetryAfter when that is not empty.
	Status     int
	RetryAfter string
	// Garbage answers 200 with a page that is no JSON.
	Garbage bool
	// Lost closes the connection without an answer.
	Lost bool
	// Done lets the request take effect first.
	Done bool
}

// Server is one account at Cloudflare. It may be used concurrently.
type Server struct {
	mux     *http.ServeMux
	token   string
	account string
	most    int

	mu      sync.Mutex
	zones   []string
	records map[string]*versions // by id
	order   []string             // ids as they were made
	tunnels map[string]*tunnel
	lag     time.Duration
	latency time.Duration
	fault   func(*http.Request) Fault
	onTXT   func(name string, values []string)
	limit   int
	window  time.Duration
	recent  []time.Time
	answers map[int]int
}

// versions are what a record was, with when; nil is deleted.
type versions struct {
	zone string
	all  []version
}

type version struct {
	at     time.Time
	record *Record
}

// New makes an account.
func New(o Options) *Server {
	s := &Server{
		token: cmp.Or(o.Token, "fake-token"), account: id(), most: cmp.Or(o.MostPerPage, 5_000_000), zones: slices.Clone(o.Zones),
		records: map[string]*versions{}, tunnels: map[string]*tunnel{}, answers: map[int]int{},
	}
	s.mux = s.routes()
	return s
}

// id is as Cloudflare makes them: 32 hexadecimal digits.
func id() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// zoneID is the same for the same zone.
func zoneID(apex string) string {
	sum := sha256.Sum256([]byte(apex))
	return hex.EncodeToString(sum[:16])
}

// Lag has reads see what was so that long ago.
func (s *Server) Lag(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lag = d
}

// Latency is how long each answer takes.
func (s *Server) Latency(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latency = d
}

// Fail has f decide about each request; nil ends that.
func (s *Server) Fail(f func(*http.Request) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Outage answers everything with 503, until it is over.
func (s *Server) Outage(on bool) {
	if !on {
		s.Fail(nil)
		return
	}
	s.Fail(func(*http.Request) Fault { return Fault{Status: http.StatusServiceUnavailable} })
}

// Limit answers 429 to more than n requests in a window; 0 answers all.
func (s *Server) Limit(n int, window time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit, s.window, s.recent = n, window, nil
}

// OnTXT is called with all values of a name after one of them has changed; see
// Challtestsrv.
func (s *Server) OnTXT(f func(name string, values []string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onTXT = f
}

// AddZone gives the account one more zone.
func (s *Server) AddZone(apex string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zones = append(s.zones, apex)
}

// Records are the zone's as they are now, whatever reads see, in the order in which
// they were made.
func (s *Server) Records(apex string) []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Record
	for _, id := range s.order {
		if v := s.records[id]; v.zone == apex {
			if r := v.latest(); r != nil {
				all = append(all, *r)
			}
		}
	}
	return all
}

// Put makes a record as somebody else would, in the dashboard, and returns its id.
func (s *Server) Put(apex string, r Record) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.TTL = cmp.Or(r.TTL, 1)
	return s.add(apex, r).ID
}

// Answers counts the answers by HTTP status; 0 are those that were lost.
func (s *Server) Answers() map[int]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	counted := map[int]int{}
	for status, n := range s.answers {
		counted[status] = n
	}
	return counted
}

// Tunnels are the names of those that are not deleted, with their rules.
func (s *Server) Tunnels() map[string][]Rule {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string][]Rule{}
	for _, t := range s.tunnels {
		if t.DeletedAt == nil {
			all[t.Name] = slices.Clone(t.rules)
		}
	}
	return all
}

// Connect has the tunnel's daemon run, or not: one that runs cannot be deleted.
func (s *Server) Connect(name string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tunnels {
		if t.Name == name && t.DeletedAt == nil {
			t.connected = on
		}
	}
}

func (v *versions) latest() *Record { return v.all[len(v.all)-1].record }

// at is the record as it was then.
func (v *versions) at(then time.Time) *Record {
	for i := len(v.all) - 1; i >= 0; i-- {
		if !v.all[i].at.After(then) {
			return v.all[i].record
		}
	}
	return nil
}

func (s *Server) add(apex string, r Record) Record {
	now := time.Now()
	r.ID, r.ZoneID, r.ZoneName, r.CreatedOn, r.ModifiedOn = id(), zoneID(apex), apex, now.UTC(), now.UTC()
	r.Proxiable = proxiable(r.Type)
	s.records[r.ID] = &versions{zone: apex, all: []version{{now, &r}}}
	s.order = append(s.order, r.ID)
	s.changed(apex, r)
	return r
}

func (s *Server) write(apex, id string, r *Record) {
	v := s.records[id]
	of := *v.latest()
	v.all = append(v.all, version{time.Now(), r})
	s.changed(apex, of)
}

// changed tells of the name's texts.
func (s *Server) changed(apex string, r Record) {
	if s.onTXT == nil || r.Type != "TXT" {
		return
	}
	var values []string
	for _, id := range s.order {
		v := s.records[id]
		if now := v.latest(); v.zone == apex && now != nil && now.Type == "TXT" && now.Name == r.Name {
			values = append(values, unquoted(now.Content))
		}
	}
	s.onTXT(r.Name, values)
}
