package cloudflare

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
)

// hostname is what a name may be; labels may begin with an underscore, the first may
// be an asterisk.
var hostname = regexp.MustCompile(`^(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// addressed are the types that a CNAME excludes.
var addressed = []string{"A", "AAAA", "CNAME"}

const (
	leastTTL   = 60
	mostTTL    = 86400
	maxComment = 100
)

func proxiable(kind string) bool { return slices.Contains(addressed, kind) }

func (s *Server) showZone(apex string) map[string]any {
	return map[string]any{
		"id": zoneID(apex), "name": apex, "status": "active", "paused": false, "type": "full",
		"account": map[string]string{"id": s.account, "name": "Fake"}, "name_servers": []string{"ada.ns.cloudflare.com", "bob.ns.cloudflare.com"},
	}
}

func (s *Server) listZones(r *http.Request) answer {
	var all []map[string]any
	for _, apex := range s.zones {
		if name := r.URL.Query().Get("name"); name == "" || name == apex {
			all = append(all, s.showZone(apex))
		}
	}
	return paged(r, all, 20, 5, 50, 50)
}

func (s *Server) getZone(_ *http.Request, apex string) answer { return good(s.showZone(apex)) }

// matches holds a text against the request's filter of that name: plain or with an
// operator.
func matches(r *http.Request, field, text string) bool {
	text = strings.ToLower(text)
	for operator, holds := range map[string]func(string) bool{
		"": func(v string) bool { return text == v }, ".exact": func(v string) bool { return text == v },
		".startswith": func(v string) bool { return strings.HasPrefix(text, v) },
		".endswith":   func(v string) bool { return strings.HasSuffix(text, v) },
		".contains":   func(v string) bool { return strings.Contains(text, v) },
	} {
		if v := r.URL.Query().Get(field + operator); v != "" && !holds(strings.ToLower(v)) {
			return false
		}
	}
	return true
}

func (s *Server) listRecords(r *http.Request, apex string) answer {
	then := time.Now().Add(-s.lag)
	var all []Record
	for _, id := range s.order {
		v := s.records[id]
		if v.zone != apex {
			continue
		}
		seen := v.at(then)
		if seen != nil && matches(r, "name", seen.Name) && matches(r, "type", seen.Type) && matches(r, "content", seen.Content) && matches(r, "comment", seen.Said()) {
			all = append(all, *seen)
		}
	}
	return paged(r, all, 100, 1, 5_000_000, s.most)
}

// asked is what a request says of a record; what it leaves out is nil.
type asked struct {
	Name, Type, Content, Comment *string
	TTL                          *float64
	Proxied                      *bool
}

func (q asked) over(r Record) Record {
	if q.Name != nil {
		r.Name = *q.Name
	}
	if q.Type != nil {
		r.Type = *q.Type
	}
	if q.Content != nil {
		r.Content = *q.Content
	}
	if q.Comment != nil {
		r.Comment = q.Comment
	}
	if q.TTL != nil {
		r.TTL = int(*q.TTL)
	}
	if q.Proxied != nil {
		r.Proxied = *q.Proxied
	}
	return r
}

// accepted is the record as the API keeps it, or why it does not.
func (s *Server) accepted(body *http.Request, apex string, r Record) (Record, *answer) {
	refuse := func(code int, format string, args ...any) (Record, *answer) {
		a := bad(http.StatusBadRequest, code, format, args...)
		return r, &a
	}
	var q asked
	if err := json.NewDecoder(http.MaxBytesReader(nil, body.Body, 1<<20)).Decode(&q); err != nil {
		return refuse(9207, "Request body is invalid.")
	}
	r = q.over(r)
	r.Name, r.Type = strings.ToLower(strings.TrimSuffix(r.Name, ".")), strings.ToUpper(r.Type)
	switch {
	case r.Name == "@":
		r.Name = apex
	case r.Name != apex && !strings.HasSuffix(r.Name, "."+apex):
		r.Name += "." + apex
	}
	if !hostname.MatchString(r.Name) || len(r.Name) > 253 {
		return refuse(9000, "DNS name is invalid.")
	}
	addr, err := netip.ParseAddr(r.Content)
	switch r.Type {
	case "A":
		if err != nil || !addr.Is4() {
			return refuse(9005, "Content for A record must be a valid IPv4 address.")
		}
	case "AAAA":
		if err != nil || !addr.Is6() {
			return refuse(9006, "Content for AAAA record must be a valid IPv6 address.")
		}
	case "CNAME":
		if r.Content = strings.ToLower(strings.TrimSuffix(r.Content, ".")); !hostname.MatchString(r.Content) || r.Content == r.Name {
			return refuse(9007, "Content for CNAME record is invalid.")
		}
	case "TXT":
		if r.Content == "" {
			return refuse(9010, "Content for TXT record must not be empty.")
		}
		if !strings.HasPrefix(r.Content, `"`) {
			r.Content = `"` + r.Content + `"`
		}
	case "MX", "NS", "SRV", "CAA":
	default:
		return refuse(9009, "Record type %q is invalid.", r.Type)
	}
	switch {
	case r.Proxied && !proxiable(r.Type):
		return refuse(9004, "This record type cannot be proxied.")
	case r.Proxied:
		r.TTL = 1
	case r.TTL != 1 && (r.TTL < leastTTL || r.TTL > mostTTL):
		return refuse(9021, "TTL must be between 60 and 86400 seconds, or 1 for Automatic.")
	}
	if len(r.Said()) > maxComment {
		return refuse(9313, "DNS record comment exceeds the maximum of %d characters.", maxComment)
	}
	if a, clash := s.clash(apex, r); clash {
		return r, &a
	}
	return r, nil
}

// clash says which other record the zone cannot hold beside it, as things are now.
func (s *Server) clash(apex string, r Record) (answer, bool) {
	for _, id := range s.order {
		v := s.records[id]
		other := v.latest()
		if v.zone != apex || other == nil || other.Name != r.Name || other.ID == r.ID {
			continue
		}
		switch {
		case other.Type == r.Type && other.Content == r.Content:
			return bad(http.StatusBadRequest, 81058, "An identical record already exists."), true
		case r.Type == "CNAME" && slices.Contains(addressed, other.Type):
			return bad(http.StatusBadRequest, 81053, "An A, AAAA, or CNAME record with that host already exists."), true
		case other.Type == "CNAME" && slices.Contains(addressed, r.Type):
			return bad(http.StatusBadRequest, 81054, "A CNAME record with that host already exists."), true
		}
	}
	return answer{}, false
}

func (s *Server) createRecord(r *http.Request, apex string) answer {
	record, refusal := s.accepted(r, apex, Record{TTL: 1, Tags: []string{}})
	if refusal != nil {
		return *refusal
	}
	return good(s.add(apex, record))
}

// record is the one that the path names, as it is now.
func (s *Server) record(r *http.Request, apex string) *Record {
	v := s.records[r.PathValue("id")]
	if v == nil || v.zone != apex {
		return nil
	}
	return v.latest()
}

func noRecord() answer { return bad(http.StatusNotFound, 81044, "Record does not exist.") }

func (s *Server) getRecord(r *http.Request, apex string) answer {
	v := s.records[r.PathValue("id")]
	if v == nil || v.zone != apex {
		return noRecord()
	}
	if seen := v.at(time.Now().Add(-s.lag)); seen != nil {
		return good(*seen)
	}
	return noRecord()
}

func (s *Server) patchRecord(r *http.Request, apex string) answer {
	if now := s.record(r, apex); now != nil {
		return s.replace(r, apex, *now)
	}
	return noRecord()
}

func (s *Server) putRecord(r *http.Request, apex string) answer {
	if now := s.record(r, apex); now != nil {
		blank := Record{ID: now.ID, ZoneID: now.ZoneID, ZoneName: apex, CreatedOn: now.CreatedOn, TTL: 1, Tags: []string{}}
		return s.replace(r, apex, blank)
	}
	return noRecord()
}

func (s *Server) replace(r *http.Request, apex string, from Record) answer {
	record, refusal := s.accepted(r, apex, from)
	if refusal != nil {
		return *refusal
	}
	record.ModifiedOn, record.Proxiable = time.Now().UTC(), proxiable(record.Type)
	s.write(apex, record.ID, &record)
	return good(record)
}

func (s *Server) deleteRecord(r *http.Request, apex string) answer {
	now := s.record(r, apex)
	if now == nil {
		return noRecord()
	}
	s.write(apex, now.ID, nil)
	return good(map[string]string{"id": now.ID})
}

func unquoted(content string) string { return strings.Trim(content, `"`) }
