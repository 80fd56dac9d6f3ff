// Package apidoc makes /openapi.json: the document generated from the schema,
// completed with what the schema language cannot say: status codes, problems,
// nulls, the bearer token, and the paths that are no RPCs.
package apidoc

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"sigs.k8s.io/yaml"

	adminv1 "github.com/slipway-paas/slipway/gen/slipway/admin/v1"
	appsv1 "github.com/slipway-paas/slipway/gen/slipway/apps/v1"
	deployv1 "github.com/slipway-paas/slipway/gen/slipway/deploy/v1"
	dnsv1 "github.com/slipway-paas/slipway/gen/slipway/dns/v1"
	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	oauthv1 "github.com/slipway-paas/slipway/gen/slipway/oauth/v1"
	webhooksv1 "github.com/slipway-paas/slipway/gen/slipway/webhooks/v1"
)

type object = map[string]any

// Build completes the generated document (YAML) and returns it as JSON. It fails
// when the generated document lacks a path that it must complete.
func Build(generated []byte, version string) ([]byte, error) {
	var doc object
	if err := yaml.Unmarshal(generated, &doc); err != nil {
		return nil, fmt.Errorf("read the generated OpenAPI document: %w", err)
	}
	paths, ok := doc["paths"].(object)
	if !ok {
		return nil, fmt.Errorf("the generated OpenAPI document has no paths")
	}
	info, _ := doc["info"].(object)
	if info == nil {
		info = object{"title": "Slipway"}
	}
	info["version"] = version
	doc["info"] = info
	doc["security"] = []any{object{"bearer": []any{}}, object{"key": []any{}}}
	doc["components"] = object{
		"schemas":    schemas(),
		"headers":    headers(),
		"parameters": parameters(),
		"responses":  object{"Problem": problemResponse(), "TooManyRequests": tooMany()},
		"securitySchemes": object{
			"bearer": object{"type": "http", "scheme": "bearer", "description": "An access token with the scope deploy:manage for /api/deploy; a login's token for /api/v1/auth, orgs and api-keys; that, or the scopes apps:write and events:read, for webhooks; what has the scope admin for /api/v1/admin."},
			"key":    object{"type": "apiKey", "in": "header", "name": "x-api-key", "description": "An API key, with the scopes it was made with."},
		},
	}

	for path, item := range paths {
		for method, operation := range item.(object) {
			op, ok := operation.(object)
			if !ok {
				continue
			}
			if err := complete(op, path, method); err != nil {
				return nil, err
			}
		}
	}
	wholeNumbers(doc)
	paths["/api/deploy/apps/{id}/events"] = object{"get": eventsOperation()}
	paths["/api/v1/events"] = object{"get": orgEventsOperation()}
	paths["/api/v1/apps/{name}/logs"] = object{"get": accessLogOperation()}
	paths["/api/v1/health"] = object{"get": healthOperation()}
	for path, operations := range oauthPaths() {
		item, _ := paths[path].(object)
		if item == nil {
			item = object{}
		}
		maps.Copy(item, operations)
		paths[path] = item
	}
	out, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("write the OpenAPI document: %w", err)
	}
	return out, nil
}

// wholeNumbers says of 64-bit fields what they are: the generator has them as protojson
// writes them, in quotes.
func wholeNumbers(doc object) {
	components, _ := doc["components"].(object)
	schemas, _ := components["schemas"].(object)
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Messages().Len() {
			m := f.Messages().Get(i)
			schema, _ := schemas[string(m.Name())].(object)
			properties, _ := schema["properties"].(object)
			for j := range m.Fields().Len() {
				field := m.Fields().Get(j)
				property, ok := properties[string(field.Name())].(object)
				if ok && property["type"] == "string" && (field.Kind() == protoreflect.Int64Kind || field.Kind() == protoreflect.Uint64Kind) {
					property["type"], property["format"] = "integer", "int64"
				}
			}
		}
		return true
	})
}

func ref(schema string) object { return object{"$ref": "#/components/schemas/" + schema} }

func complete(op object, path, method string) error {
	responses, ok := op["responses"].(object)
	if !ok || responses["200"] == nil {
		return fmt.Errorf("the generated OpenAPI document has no 200 for %s %s", method, path)
	}
	if description, ok := creations()[fmt.Sprint(op["operationId"])]; ok {
		created := responses["200"].(object)
		created["description"] = description
		delete(responses, "200")
		responses["201"] = created
	}
	if description, ok := empties()[fmt.Sprint(op["operationId"])]; ok {
		delete(responses, "200")
		responses["204"] = object{"description": description}
	}
	if slices.Contains(open(), fmt.Sprint(op["operationId"])) {
		op["security"] = []any{}
	}
	codes := []string{"401", "403", "429", "503"}
	if strings.Contains(path, "{") {
		codes = append(codes, "404")
	}
	if method == "post" || method == "put" || method == "delete" {
		codes = append(codes, "400", "409", "413", "415", "422")
	}
	for _, code := range codes {
		responses[code] = problemRef()
	}
	responses["429"] = object{"$ref": "#/components/responses/TooManyRequests"}
	for code, response := range responses {
		if answer, ok := response.(object); ok && strings.HasPrefix(code, "2") {
			answer["headers"] = limitHeaders()
		}
	}
	if method == "post" {
		parameters, _ := op["parameters"].([]any)
		op["parameters"] = append(parameters, object{"$ref": "#/components/parameters/IdempotencyKey"})
	}
	return nil
}

// open are the operations that need no credential.
func open() []string {
	return []string{
		"AccountService_Register", "SignUpService_SignUp", "AccountService_Login", "AccountService_VerifyEmail", "AccountService_SendVerification",
		"AccountService_ForgotPassword", "AccountService_ResetPassword",
	}
}

// creations are the operations that answer 201, and what they say of it.
func creations() map[string]string {
	return map[string]string{
		"DeployService_CreateDeployment":               "Created; the work goes on in the background.",
		"OrgService_CreateOrg":                         "Created, with the caller as its owner.",
		"OrgService_InviteMember":                      "Invited; whoever has the address may join.",
		"ApiKeyService_CreateApiKey":                   "Created; the key is shown this once.",
		"EventCredentialService_CreateEventCredential": "Created; the seed is shown this once.",
		"WebhookService_CreateWebhook":                 "Created; the secret is shown this once.",
		"OAuthAppService_RegisterApp":                  "Registered; the client_secret is shown this once.",
		"DomainService_AddDomain":                      "Added, pending until its DNS says that it is the app's.",
	}
}

// empties are the operations that answer 204, and what they say of it.
func empties() map[string]string {
	return map[string]string{
		"DomainService_RemoveDomain":     "Removed; the name is free.",
		"DomainService_SetPrimaryDomain": "It is the app's primary domain now, and no other is.",
	}
}

// limitHeaders are in every answer whose caller is limited.
func limitHeaders() object {
	return object{
		"RateLimit":        object{"$ref": "#/components/headers/RateLimit"},
		"RateLimit-Policy": object{"$ref": "#/components/headers/RateLimitPolicy"},
	}
}

func headers() object {
	str := object{"type": "string"}
	return object{
		"RateLimit": object{
			"schema": str, "example": `"reads";r=29;t=60`,
			"description": "How many more requests (r) this endpoint takes from you now, and after how many seconds (t) one more (draft-ietf-httpapi-ratelimit-headers-10).",
		},
		"RateLimitPolicy": object{
			"schema": str, "example": `"reads";q=30;w=60`,
			"description": "How many requests (q) this endpoint takes from you in any so many seconds (w).",
		},
		"RetryAfter": object{"schema": object{"type": "integer", "minimum": 1}, "description": "After how many seconds to try again."},
	}
}

func parameters() object {
	return object{"IdempotencyKey": object{
		"name": "Idempotency-Key", "in": "header", "required": false,
		"schema": object{"type": "string", "minLength": 1, "maxLength": 255}, "example": `"8e03978e-40d5-43dd-bc93-6894a57f9324"`,
		"description": "Makes the request safe to send again: with the same key and body within 24 hours the first answer comes again, with Idempotent-Replayed: true. " +
			"Another body is 422; one that is still under way 409 with Retry-After (draft-ietf-httpapi-idempotency-key-header-07).",
	}}
}

func eventsOperation() object {
	sequence := object{"type": "integer", "minimum": 0}
	return object{
		"tags":        []any{"DeployService"},
		"operationId": "DeployService_FollowDeploymentEvents",
		"description": "The deployment's own events as server-sent events, from the first or from after the given sequence, going on as they happen. Each has id (the sequence), event (the type) and data (CloudEvents JSON).",
		"parameters": []any{
			object{"name": "id", "in": "path", "required": true, "schema": object{"type": "string", "format": "uuid"}},
			object{"name": "Last-Event-ID", "in": "header", "description": "Resume after this sequence.", "schema": sequence},
			object{"name": "last_event_id", "in": "query", "description": "The same, for clients that cannot set headers.", "schema": sequence},
		},
		"responses": object{
			"200": object{"description": "OK", "content": object{"text/event-stream": object{"schema": ref("Event")}}},
			"400": problemRef(), "401": problemRef(), "403": problemRef(), "404": problemRef(), "429": problemRef(), "503": problemRef(),
		},
	}
}

func orgEventsOperation() object {
	sequence := object{"type": "integer", "minimum": 0}
	many := object{"type": "array", "items": object{"type": "string"}, "maxItems": 8}
	return object{
		"tags":        []any{"EventService"},
		"operationId": "EventService_FollowEvents",
		"description": "The events of the caller's organization as server-sent events, from the first or from after the given sequence, going on as they happen; they end with the access to them. It needs the scope events:read. Each has id (the sequence), event (the type) and data (CloudEvents JSON).",
		"parameters": []any{
			object{"name": "type", "in": "query", "description": "Only events of these types.", "schema": many, "example": []any{"DeploymentRunning"}},
			object{"name": "aggregate", "in": "query", "description": "Only events of these aggregates: kind, or kind/id.", "schema": many, "example": []any{"deployment"}},
			object{"name": "after", "in": "query", "description": "Begin after this sequence.", "schema": sequence},
			object{"name": "Last-Event-ID", "in": "header", "description": "Resume after this sequence; it comes before after.", "schema": sequence},
		},
		"responses": object{
			"200": object{"description": "OK", "content": object{"text/event-stream": object{"schema": ref("Event")}}},
			"400": problemRef(), "401": problemRef(), "403": problemRef(), "422": problemRef(), "429": problemRef(), "503": problemRef(),
		},
	}
}

func healthOperation() object {
	answer := func(description string) object {
		return object{"description": description, "content": object{"application/json": object{"schema": ref("Health")}}}
	}
	return object{
		"tags": []any{"Health"}, "operationId": "Health_Get", "security": []any{},
		"description": "Whether the platform is ready, service by service.",
		"responses":   object{"200": answer("Every service is ready."), "503": answer("Some service is not.")},
	}
}

func problemResponse() object {
	return object{"description": "What happened, why, and what to do (RFC 9457).", "content": object{"application/problem+json": object{"schema": ref("Problem")}}}
}

func tooMany() object {
	out := problemResponse()
	out["description"] = "Too many requests, or too many of something; Retry-After says when to try again."
	headers := limitHeaders()
	headers["Retry-After"] = object{"$ref": "#/components/headers/RetryAfter"}
	out["headers"] = headers
	return out
}

func problemRef() object { return object{"$ref": "#/components/responses/Problem"} }

// schemas describes the API's messages from their descriptors, so that
// messages of the same name in other packages cannot take their place.
func schemas() object {
	str := object{"type": "string"}
	out := object{
		"Problem": object{
			"type":     "object",
			"required": []any{"type", "title", "status", "detail", "error", "message", "code"},
			"properties": object{
				"type": str, "title": str, "status": object{"type": "integer"}, "detail": str, "error": str, "message": str,
				"code":   object{"type": "string", "description": "Stable: clients may rely on it."},
				"fields": object{"type": "array", "items": object{"type": "object", "properties": object{"field": str, "message": str}}},
			},
		},
		"Health": object{
			"type": "object", "required": []any{"status", "version", "services"},
			"properties": object{
				"status":   object{"type": "string", "enum": []any{"ok", "starting", "degraded"}},
				"version":  str,
				"services": object{"type": "object", "additionalProperties": object{"type": "boolean"}},
			},
		},
		"Event": object{
			"type": "object",
			"properties": object{
				"specversion": str, "id": str, "type": str, "source": str, "subject": str,
				"time": object{"type": "string", "format": "date-time"}, "sequence": object{"type": "integer"},
				"actor": str, "data": object{"type": "object"},
			},
		},
	}
	for _, file := range described() {
		messages := file.Messages()
		for i := range messages.Len() {
			m := messages.Get(i)
			if strings.HasPrefix(string(m.Name()), "FollowDeploymentEvents") {
				continue
			}
			out[string(m.Name())] = message(m)
		}
	}
	return out
}

// described are the files whose messages the public API is made of.
func described() []protoreflect.FileDescriptor {
	return []protoreflect.FileDescriptor{
		deployv1.File_slipway_deploy_v1_deploy_proto, appsv1.File_slipway_apps_v1_apps_proto, adminv1.File_slipway_admin_v1_admin_proto,
		identityv1.File_slipway_identity_v1_accounts_proto, identityv1.File_slipway_identity_v1_orgs_proto,
		identityv1.File_slipway_identity_v1_apikeys_proto, identityv1.File_slipway_identity_v1_eventcredentials_proto, oauthv1.File_slipway_oauth_v1_oauth_proto,
		webhooksv1.File_slipway_webhooks_v1_webhooks_proto, domainv1.File_slipway_domain_v1_domains_proto, dnsv1.File_slipway_dns_v1_dns_proto, appsv1.File_slipway_apps_v1_ingress_proto,
	}
}

func message(m protoreflect.MessageDescriptor) object {
	properties := object{}
	var names []any
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		properties[f.TextName()] = property(f)
		if !f.HasOptionalKeyword() {
			names = append(names, f.TextName())
		}
	}
	out := object{"type": "object", "properties": properties}
	switch {
	case m.Name() == "CreateDeploymentRequest":
		out["required"] = []any{"subdomain", "image", "tier"}
		out["additionalProperties"] = false
	case len(names) > 0:
		out["required"] = names
	}
	return out
}

func property(f protoreflect.FieldDescriptor) object {
	switch {
	case f.IsMap():
		of := "string"
		if f.MapValue().Kind() == protoreflect.Int32Kind {
			of = "integer"
		}
		return object{"type": "object", "additionalProperties": object{"type": of}}
	case f.IsList() && f.Message() == nil:
		return object{"type": "array", "items": object{"type": "string"}}
	case f.IsList():
		return object{"type": "array", "items": ref(string(f.Message().Name()))}
	case f.Kind() == protoreflect.MessageKind:
		switch name := f.Message().FullName(); name {
		case "google.protobuf.StringValue":
			return object{"type": "string", "nullable": true}
		case "google.protobuf.DoubleValue":
			return object{"type": "number", "nullable": true}
		case "google.protobuf.BoolValue":
			return object{"type": "boolean", "nullable": true}
		case "google.protobuf.Timestamp":
			return object{"type": "string", "format": "date-time", "nullable": true}
		case "google.protobuf.Int32Value", "google.protobuf.UInt32Value":
			return object{"type": "integer", "nullable": true}
		case "google.protobuf.Struct":
			return object{"type": "object", "nullable": true}
		default:
			return ref(string(f.Message().Name()))
		}
	case f.Kind() == protoreflect.BoolKind:
		return object{"type": "boolean"}
	case f.Kind() == protoreflect.DoubleKind:
		return object{"type": "number"}
	case f.Kind() == protoreflect.StringKind:
		return object{"type": "string"}
	default:
		return object{"type": "integer"}
	}
}
