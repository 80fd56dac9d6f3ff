package edge

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/slipway-paas/slipway/services/proxy-config/edge/module"
)

// object keeps Caddy's configuration readable as what it is: JSON.
type object = map[string]any

// caddyConfig is all that Caddy is told. It stays the same for the life of the
// process: what changes with routes is in the table.
func caddyConfig(c Config, tracing bool) ([]byte, error) {
	proxies, _, err := c.proxies()
	if err != nil {
		return nil, err
	}
	c.TrustedProxies = proxies
	servers := object{
		"http":    c.server(c.HTTP, false, c.appRoutes(false, tracing)),
		"metrics": metricsServer(c.Metrics),
	}
	if c.servesHTTPS() {
		servers["https"] = c.server(c.HTTPS, true, c.appRoutes(true, tracing))
	}
	apps := object{
		"http": object{
			"grace_period": c.Grace.String(),
			"metrics":      object{},
			"servers":      servers,
		},
	}
	if c.servesHTTPS() {
		c.certificates(apps)
	}
	config, err := json.Marshal(object{
		"admin":   object{"disabled": true, "config": object{"persist": false}},
		"storage": c.storage(),
		"logging": object{"logs": object{"default": object{
			"level":   strings.ToUpper(c.LogLevel),
			"writer":  object{"output": "stderr"},
			"encoder": object{"format": "json", "time_key": "time", "time_format": "rfc3339_nano", "level_format": "upper"},
			// A flood of failing requests must not become a flood of lines.
			"sampling": object{"interval": 1_000_000_000, "first": 20, "thereafter": 1000},
			"exclude":  []string{"http.log.access"},
		}}},
		"apps": apps,
	})
	if err != nil {
		return nil, fmt.Errorf("encoding Caddy's configuration: %w", err)
	}
	return config, nil
}

func (c Config) server(listen string, tls bool, routes []object) object {
	s := object{
		"listen":    []string{listen},
		"protocols": []string{"h1"},
		// Counted below TLS: net/http tells who speaks HTTP to the TLS port so only when it
		// has the TLS connection itself.
		"listener_wrappers":   c.listenerWrappers(),
		"read_header_timeout": c.HeaderTimeout.String(),
		"idle_timeout":        "2m",
		"max_header_bytes":    64 << 10,
		// Certificates and redirects are ours: they follow the table.
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
		s["protocols"] = []string{"h1", "h2", "h3"}
		s["tls_connection_policies"] = []object{{}}
	}
	return s
}

// appRoutes is the one chain that every request for an app takes.
func (c Config) appRoutes(tls, tracing bool) []object {
	chain := []object{
		{"handler": module.HandlerClient}, {"handler": module.HandlerAccess},
		{"handler": module.HandlerIDs, "traceparent": !tracing},
	}
	if tracing {
		chain = append(chain, object{"handler": "tracing", "span": "{http.request.method}"})
	}
	chain = append(chain,
		answerRequestID(),
	)
	chain = append(chain, c.secured(tls)...)
	chain = append(chain,
		object{"handler": module.HandlerHop},
		object{"handler": module.HandlerPolicy, "max_request_bytes": c.MaxRequest},
		object{"handler": module.HandlerRoute},
	)
	routes := []object{{"handle": chain}}
	if c.Compression {
		routes = append(routes, compression())
	}
	return append(routes, object{"handle": []object{
		{"handler": module.HandlerDeadline},
		{"handler": module.HandlerProxy, "body_timeout": c.BodyTimeout, "answer_timeout": c.RequestTimeout},
	}})
}

// answerRequestID gives the id to the client too, unless the app answered one.
func answerRequestID() object {
	return object{"handler": "headers", "response": object{
		"require":  object{"headers": object{"X-Request-Id": nil}},
		"set":      object{"X-Request-Id": []string{"{http.request.header.X-Request-Id}"}},
		"deferred": true,
	}}
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
