package cloudflare

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Rule is one of a tunnel's ingress.
type Rule struct {
	Hostname string `json:"hostname,omitempty"`
	Path     string `json:"path,omitempty"`
	Service  string `json:"service"`
}

type tunnel struct {
	ID        string     `json:"id"`
	Account   string     `json:"account_tag"`
	Name      string     `json:"name"`
	ConfigSrc string     `json:"config_src"`
	Status    string     `json:"status"`
	CreatedAt time.Time  `json:"created_at"`
	DeletedAt *time.Time `json:"deleted_at"`
	Type      string     `json:"tun_type"`

	rules     []Rule
	version   int
	connected bool
}

func noTunnel() answer { return bad(http.StatusNotFound, 1003, "Tunnel not found") }

func (s *Server) ofTunnel(h func(*http.Request, *tunnel) answer) func(*http.Request) answer {
	return s.inAccount(func(r *http.Request) answer {
		t := s.tunnels[r.PathValue("id")]
		if t == nil || t.DeletedAt != nil {
			return noTunnel()
		}
		return h(r, t)
	})
}

func (s *Server) listTunnels(r *http.Request) answer {
	query := r.URL.Query()
	var all []*tunnel
	for _, t := range s.tunnels {
		if name := query.Get("name"); name != "" && name != t.Name {
			continue
		}
		if deleted := query.Get("is_deleted"); deleted == "" || deleted == fmt.Sprint(t.DeletedAt != nil) {
			all = append(all, t)
		}
	}
	slices.SortFunc(all, func(a, b *tunnel) int { return strings.Compare(a.ID, b.ID) })
	return paged(r, all, 20, 1, 1000, 1000)
}

func (s *Server) createTunnel(r *http.Request) answer {
	var q struct {
		Name      string `json:"name"`
		ConfigSrc string `json:"config_src"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 1<<20)).Decode(&q); err != nil || q.Name == "" {
		return bad(http.StatusBadRequest, 1001, "Invalid request body: name is required")
	}
	for _, t := range s.tunnels {
		if t.Name == q.Name && t.DeletedAt == nil {
			return bad(http.StatusConflict, 1013, "You already have a tunnel with this name")
		}
	}
	raw := id()
	t := &tunnel{
		ID:      raw[:8] + "-" + raw[8:12] + "-4" + raw[13:16] + "-a" + raw[17:20] + "-" + raw[20:],
		Account: s.account, Name: q.Name, ConfigSrc: q.ConfigSrc, Status: "inactive", CreatedAt: time.Now().UTC(), Type: "cfd_tunnel",
	}
	s.tunnels[t.ID] = t
	return good(t)
}

func (s *Server) getTunnel(_ *http.Request, t *tunnel) answer { return good(t) }

func (s *Server) deleteTunnel(_ *http.Request, t *tunnel) answer {
	if t.connected {
		return bad(http.StatusBadRequest, 1022, "Tunnel has active connections; please disconnect them and retry")
	}
	now := time.Now().UTC()
	t.DeletedAt = &now
	return good(t)
}

func (s *Server) tunnelToken(_ *http.Request, t *tunnel) answer {
	text := fmt.Sprintf(`{"a":%q,"t":%q,"s":%q}`, s.account, t.ID, zoneID(t.ID))
	return good(base64.StdEncoding.EncodeToString([]byte(text)))
}

func (s *Server) showRules(t *tunnel) answer {
	var config any
	if t.version > 0 {
		config = map[string]any{"ingress": t.rules, "warp-routing": map[string]bool{"enabled": false}}
	}
	return good(map[string]any{"tunnel_id": t.ID, "version": t.version, "config": config, "source": "cloudflare", "created_at": t.CreatedAt})
}

func (s *Server) getRules(_ *http.Request, t *tunnel) answer { return s.showRules(t) }

func (s *Server) putRules(r *http.Request, t *tunnel) answer {
	var q struct {
		Config struct {
			Ingress []Rule `json:"ingress"`
		} `json:"config"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 1<<20)).Decode(&q); err != nil {
		return bad(http.StatusBadRequest, 1001, "Invalid request body")
	}
	rules := q.Config.Ingress
	if n := len(rules); n == 0 || rules[n-1].Hostname != "" || rules[n-1].Path != "" {
		return bad(http.StatusBadRequest, 1056, "Bad Configuration: The last ingress rule must match all URLs (i.e. it should not have a hostname or path filter)")
	}
	t.rules = rules
	t.version++
	return s.showRules(t)
}
