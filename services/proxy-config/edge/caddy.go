package edge

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/slipway-paas/slipway/services/proxy-config/edge/module"
)

// object keeps Caddy's configuration readable as what it is: JSON.
type object = map[string]any

// idleTimeout of connections to apps. It is shorter than the keep-alive of the
// usual app servers (gunicorn 2 s, Node and uvicorn 5 s), so that the edge closes
// an idle connection before the app does: a POST never meets one just closed.
const idleTimeout = "1500ms"

// probeInterval is between a connection's probes while they go unanswered: after 15 s
// of silence nine of them, so an app that vanished without a word is noticed within
// half a minute. Its machine answers them: an app may think for longer. TCP's user
// timeout would do more, and cut off apps that read slowly.
const probeInterval = "1s"

// caddyConfig is all that Caddy is told. It stays the same for the life of the
// process: what changes with routes is in the table.
func caddyConfig(c Config, tracing bool) ([]byte, error) {
	proxies, _, err := c.proxies()
	if err != nil {
		return nil, err
	}
	c.TrustedProxies = proxies
	servers := object{
		"http":    c.server(c.HTTP, false, c.appRoutes(tracing)),
		"metrics": metricsServer(c.Metrics),
	}
	if c.HTTPS != "" {
		servers["https"] = c.server(c.HTTPS, true, c.appRoutes(tracing))
	}
	config, err := json.Marshal(object{
		"admin":   object{"disabled": true, "config": object{"persist": false}},
		"storage": object{"module": "file_system", "root": filepath.Join(c.DataDir, "caddy")},
		"logging": object{"logs": object{"default": object{
			"level":   strings.ToUpper(c.LogLevel),
			"writer":  object{"output": "stderr"},
			"encoder": object{"format": "json", "time_key": "time", "time_format": "rfc3339_nano", "level_format": "upper"},
			// A flood of failing requests must not become a flood of lines.
			"sampling": object{"interval": 1_000_000_000, "first": 20, "thereafter": 1000},
			"exclude":  []string{"http.log.access"},
		}}},
		"apps": object{
			"http": object{
				"grace_period": c.Grace.String(),
				"metrics":      object{},
				"servers":      servers,
			},
			"tls": object{"automation": object{
				"on_demand": object{"permission": object{"module": module.Permission}},
				"policies": []object{{
					"on_demand":       true,
					"issuers":         []object{{"module": "internal"}},
					"get_certificate": []object{{"via": module.UnknownHosts}},
				}},
			}},
			"pki": object{"certificate_authorities": object{"local": object{
				"name": "Slipway Local Authority", "install_trust": false,
			}}},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("encoding Caddy's configuration: %w", err)
	}
	return config, nil
}

func (c Config) server(listen string, tls bool, routes []object) object {
	s := object{
		"listen":              []string{listen},
		"protocols":           []string{"h1"},
		"listener_wrappers":   c.listenerWrappers(),
		"read_header_timeout": "10s",
		"idle_timeout":        "2m",
		"max_header_bytes":    64 << 10,
		// Both ports serve: no redirect from one to the other.
		"automatic_https": object{"disable": true},
		"routes":          routes,
		"errors": object{"routes": []object{{"handle": []object{
			{"handler": module.HandlerAccess, "errors": true}, answerRequestID(), {"handler": module.HandlerErrors},
		}}}},
	}
	if len(c.TrustedProxies) > 0 {
		s["trusted_proxies"] = object{"source": "static", "ranges": c.TrustedProxies}
		// The client is the last address that no trusted proxy has: what stands before
		// it the client wrote.
		s["trusted_proxies_strict"] = 1
	}
	if tls {
		s["protocols"] = []string{"h1", "h2"}
		s["tls_connection_policies"] = []object{{}}
	}
	return s
}

// appRoutes is the one chain that every request for an app takes.
func (c Config) appRoutes(tracing bool) []object {
	chain := []object{
		{"handler": module.HandlerClient}, {"handler": module.HandlerAccess},
		{"handler": module.HandlerIDs, "traceparent": !tracing},
	}
	if tracing {
		chain = append(chain, object{"handler": "tracing", "span": "{http.request.method}"})
	}
	chain = append(chain,
		answerRequestID(),
		object{"handler": module.HandlerHop},
		object{"handler": module.HandlerPolicy, "max_request_bytes": c.MaxRequest},
		object{"handler": module.HandlerRoute},
	)
	routes := []object{{"handle": chain}}
	if c.Compression {
		routes = append(routes, compression())
	}
	return append(routes, object{"handle": []object{{"handler": module.HandlerDeadline}, c.reverseProxy()}})
}

// answerRequestID gives the id to the client too, unless the app answered one.
func answerRequestID() object {
	return object{"handler": "headers", "response": object{
		"require":  object{"headers": object{"X-Request-Id": nil}},
		"set":      object{"X-Request-Id": []string{"{http.request.header.X-Request-Id}"}},
		"deferred": true,
	}}
}

func (c Config) reverseProxy() object {
	return object{
		"handler":           "reverse_proxy",
		"dynamic_upstreams": object{"source": module.Upstreams},
		// Here and not before: a client could have it taken away by naming it in
		// Connection.
		"headers": object{"request": object{"set": object{"X-Real-Ip": []string{"{http.vars.client_ip}"}}}},
		"load_balancing": object{
			"selection_policy": object{"policy": "least_conn"},
			// Caddy repeats any request that found no connection, and after that only
			// GETs; never after try_duration, so that a slow failure stays single.
			"retries":      5,
			"try_duration": "3s",
			"try_interval": "10ms",
		},
		"transport": object{
			"protocol":                "http",
			"versions":                []string{"1.1"},
			"dial_timeout":            "2s",
			"response_header_timeout": c.RequestTimeout.String(),
			"compression":             false,
			"network_proxy":           object{"from": "none"},
			"keep_alive":              object{"max_idle_conns_per_host": 256, "idle_timeout": idleTimeout, "probe_interval": probeInterval},
		},
	}
}

func metricsServer(listen string) object {
	return object{
		"listen":              []string{listen},
		"protocols":           []string{"h1"},
		"read_header_timeout": "5s",
		"automatic_https":     object{"disable": true},
		"routes": []object{
			{"match": []object{{"path": []string{"/metrics"}}}, "handle": []object{{"handler": "metrics"}}},
			{"match": []object{{"path": []string{"/ready"}}}, "handle": []object{{"handler": module.HandlerReady}}},
			{"handle": []object{{"handler": "static_response", "status_code": 404}}},
		},
	}
}
