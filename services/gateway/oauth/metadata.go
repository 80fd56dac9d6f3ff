package oauth

import (
	"encoding/json"
	"net/http"
)

// scopes of the platform and what a person is told of them, in the order of the page.
var scopes = []struct{ name, says string }{
	{"deploy:manage", "Create, restart, stop and destroy deployments"},
	{"deploy:read", "See deployments, their status and their logs"},
	{"apps:write", "Change apps: their settings, domains and releases"},
	{"billing:read", "See bills and what is charged"},
	{"events:read", "Follow everything that happens in the organization"},
	{"admin", "Run the whole platform: nodes, backups, and other people's deployments"},
}

func scopeNames() []string {
	names := make([]string, len(scopes))
	for i, s := range scopes {
		names[i] = s.name
	}
	return names
}

// document is RFC 8414's, with RFC 8628's and RFC 9207's members.
type document struct {
	Issuer              string   `json:"issuer"`
	Authorization       string   `json:"authorization_endpoint"`
	Token               string   `json:"token_endpoint"`
	Revocation          string   `json:"revocation_endpoint"`
	Introspection       string   `json:"introspection_endpoint"`
	DeviceAuthorization string   `json:"device_authorization_endpoint"`
	Scopes              []string `json:"scopes_supported"`
	ResponseTypes       []string `json:"response_types_supported"`
	ResponseModes       []string `json:"response_modes_supported"`
	GrantTypes          []string `json:"grant_types_supported"`
	TokenAuth           []string `json:"token_endpoint_auth_methods_supported"`
	RevocationAuth      []string `json:"revocation_endpoint_auth_methods_supported"`
	IntrospectionAuth   []string `json:"introspection_endpoint_auth_methods_supported"`
	CodeChallenge       []string `json:"code_challenge_methods_supported"`
	IssParameter        bool     `json:"authorization_response_iss_parameter_supported"`
}

func (h *Handler) metadata(w http.ResponseWriter, _ *http.Request) {
	issuer := h.deps.Issuer()
	secret := []string{"client_secret_basic", "client_secret_post"}
	w.Header().Set("Content-Type", "application/json")
	// A failed write means that the client is gone.
	_ = json.NewEncoder(w).Encode(document{
		Issuer: issuer, Authorization: issuer + PathAuthorize, Token: issuer + PathToken, Revocation: issuer + PathRevoke,
		Introspection: issuer + PathIntrospect, DeviceAuthorization: issuer + PathDeviceCode,
		Scopes: scopeNames(), ResponseTypes: []string{"code"}, ResponseModes: []string{"query"},
		GrantTypes: []string{"authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"},
		TokenAuth:  append(secret, "none"), RevocationAuth: append(secret, "none"), IntrospectionAuth: secret,
		CodeChallenge: []string{"S256"}, IssParameter: true,
	})
}
