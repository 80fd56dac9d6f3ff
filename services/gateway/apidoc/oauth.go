package apidoc

// oauthPaths are the endpoints of OAuth that speak forms and redirects, not JSON; what
// they say is in the RFCs.
func oauthPaths() map[string]object {
	endpoint := func(id, description string, parameters ...string) object {
		properties := object{}
		for _, p := range parameters {
			properties[p] = object{"type": "string"}
		}
		schema := object{"type": "object", "properties": properties}
		return object{"post": object{
			"tags": []any{"OAuth"}, "operationId": id, "description": description, "security": []any{},
			"requestBody": object{"required": true, "content": object{
				"application/x-www-form-urlencoded": object{"schema": schema}, "application/json": object{"schema": schema},
			}},
			"responses": object{
				"200": object{"description": "OK", "content": object{"application/json": object{"schema": object{"type": "object"}}}},
				"400": object{"description": "Refused: error and error_description (RFC 6749, section 5.2)."},
				"401": object{"description": "The client's credentials are not right."},
			},
		}}
	}
	var query []any
	for _, p := range []string{"response_type", "client_id", "redirect_uri", "scope", "state", "code_challenge", "code_challenge_method"} {
		query = append(query, object{"name": p, "in": "query", "required": p != "state", "schema": object{"type": "string"}})
	}
	return map[string]object{
		"/api/oauth/authorize": {"get": object{
			"tags": []any{"OAuth"}, "operationId": "OAuth_Authorize", "security": []any{}, "parameters": query,
			"description": "For a person's browser: signs in, asks for consent, and leads back to redirect_uri with a code. PKCE with S256 is needed.",
			"responses": object{
				"200": object{"description": "A page.", "content": object{"text/html": object{}}},
				"303": object{"description": "Back to the app, with code or error."},
				"400": object{"description": "A page that says why nobody is sent anywhere.", "content": object{"text/html": object{}}},
			},
		}},
		"/api/oauth/token": endpoint("OAuth_Token", "Tokens for a code, a refresh token or a device code (RFC 6749, 7636, 8628).",
			"grant_type", "client_id", "client_secret", "code", "redirect_uri", "code_verifier", "refresh_token", "device_code", "scope"),
		"/api/oauth/revoke":      endpoint("OAuth_Revoke", "Ends a token; of a refresh token all that came of the same consent (RFC 7009).", "token", "client_id", "client_secret"),
		"/api/oauth/introspect":  endpoint("OAuth_Introspect", "What a confidential client's own token is (RFC 7662).", "token", "client_id", "client_secret"),
		"/api/oauth/device/code": endpoint("OAuth_DeviceCode", "Codes for a device that has no browser (RFC 8628).", "client_id", "scope"),
	}
}
