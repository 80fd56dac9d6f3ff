package edge

import "github.com/slipway-paas/slipway/services/proxy-config/edge/module"

// listenerWrappers are what connections pass before they speak HTTP or TLS.
func (c Config) listenerWrappers() []object {
	wrappers := []object{{"wrapper": module.Listener}}
	if len(c.ProxyProtocol) > 0 {
		// Whoever else begins with such a header speaks no HTTP.
		wrappers = append(wrappers, object{"wrapper": "proxy_protocol", "timeout": "5s", "allow": c.ProxyProtocol, "fallback_policy": "SKIP"})
	}
	// Without it they would all come after TLS, and hide it from the requests.
	return append(wrappers, object{"wrapper": "tls"})
}

// compression compresses what apps did not, as they send it. What is short, is of a
// kind that does not get smaller, or comes as events passes as it is.
func compression() object {
	return object{
		"match": []object{{module.MatcherCompressible: object{}}},
		"handle": []object{{
			"handler":        "encode",
			"encodings":      object{"zstd": object{}, "gzip": object{}},
			"prefer":         []string{"zstd", "gzip"},
			"minimum_length": 1024,
			"match": object{"headers": object{"Content-Type": []string{
				"text/html*", "text/css*", "text/plain*", "text/xml*", "text/csv*", "text/javascript*", "text/markdown*",
				"application/json*", "application/problem+json*", "application/ld+json*", "application/geo+json*", "application/manifest+json*",
				"application/vnd.api+json*", "application/javascript*", "application/x-javascript*", "application/graphql-response+json*",
				"application/xml*", "application/xhtml+xml*", "application/rss+xml*", "application/atom+xml*", "application/wasm*", "image/svg+xml*",
			}}},
		}},
	}
}
