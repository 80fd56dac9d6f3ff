package scenarios

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/e2e/stack"
)

// forAnybody are the methods that need no credential; all others are bound to an
// organization.
var forAnybody = []string{
	"slipway.identity.v1.AccountService.Register", "slipway.identity.v1.SignUpService.SignUp", "slipway.identity.v1.AccountService.Login",
	"slipway.identity.v1.AccountService.VerifyEmail", "slipway.identity.v1.AccountService.SendVerification",
	"slipway.identity.v1.AccountService.ForgotPassword", "slipway.identity.v1.AccountService.ResetPassword",
}

// tenant is what belongs to one organization. Things are by where a request names them:
// service.field, or method.field where a service names several.
type tenant struct {
	org    string
	things map[string]string
}

// names are the fields that name something: a new one must be known here, so that no
// method is asked for what is nobody's.
func names(f protoreflect.FieldDescriptor) bool {
	text := string(f.Name())
	return f.Kind() == protoreflect.StringKind && !f.IsList() && !f.IsMap() && (text == "id" || strings.HasSuffix(text, "_id"))
}

// thing is what a method's field names, of this tenant.
func (o tenant) thing(m protoreflect.MethodDescriptor, f protoreflect.FieldDescriptor) string {
	for _, of := range []protoreflect.Name{m.Name(), m.Parent().Name()} {
		if id := o.things[string(of)+"."+string(f.Name())]; id != "" {
			return id
		}
	}
	return ""
}

// public are the methods that the gateway says it has, with what they take. A new one is
// walked by itself.
func public(t *testing.T, conn *grpc.ClientConn) []protoreflect.MethodDescriptor {
	t.Helper()
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	reflects := func(request *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
		t.Helper()
		if err := stream.Send(request); err != nil {
			t.Fatal(err)
		}
		answer, err := stream.Recv()
		if err != nil || answer.GetErrorResponse() != nil {
			t.Fatalf("reflection: %v, %v", answer.GetErrorResponse(), err)
		}
		return answer
	}
	list := reflects(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
	set, seen, services := &descriptorpb.FileDescriptorSet{}, map[string]bool{}, []string{}
	for _, s := range list.GetListServicesResponse().GetService() {
		if strings.HasPrefix(s.GetName(), "grpc.") {
			continue
		}
		services = append(services, s.GetName())
		answer := reflects(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: s.GetName()}})
		for _, raw := range answer.GetFileDescriptorResponse().GetFileDescriptorProto() {
			file := &descriptorpb.FileDescriptorProto{}
			if err := proto.Unmarshal(raw, file); err != nil {
				t.Fatal(err)
			}
			if !seen[file.GetName()] {
				seen[file.GetName()] = true
				set.File = append(set.File, file)
			}
		}
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	var all []protoreflect.MethodDescriptor
	for _, name := range services {
		found, err := files.FindDescriptorByName(protoreflect.FullName(name))
		if err != nil {
			t.Fatal(err)
		}
		methods := found.(protoreflect.ServiceDescriptor).Methods()
		for i := range methods.Len() {
			all = append(all, methods.Get(i))
		}
	}
	return all
}

// request asks for what is the other's; named says whether it names anything.
func (o tenant) request(t *testing.T, m protoreflect.MethodDescriptor) (in *dynamicpb.Message, named bool) {
	t.Helper()
	in = dynamicpb.NewMessage(m.Input())
	// What is the platform's is no organization's.
	named = strings.HasSuffix(string(m.Parent().Name()), "AdminService")
	for i := range m.Input().Fields().Len() {
		f := m.Input().Fields().Get(i)
		value := o.thing(m, f)
		switch {
		case value != "":
			named = true
		case names(f) && !named:
			t.Errorf("%s names something as %s, which the walk does not know: add it to what owned makes", m.FullName(), f.Name())
		case f.Kind() != protoreflect.StringKind || f.IsList() || f.IsMap():
			continue
		default:
			value = map[protoreflect.Name]string{"role": "viewer", "email": "eve@example.com", "url": "https://example.com/"}[f.Name()]
		}
		if value != "" {
			in.Set(f, protoreflect.ValueOfString(value))
		}
	}
	return in, named
}

// ask calls a method; a stream's first message is its answer.
func ask(ctx context.Context, conn *grpc.ClientConn, m protoreflect.MethodDescriptor, in *dynamicpb.Message) (*dynamicpb.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	full, out := "/"+string(m.Parent().FullName())+"/"+string(m.Name()), dynamicpb.NewMessage(m.Output())
	if !m.IsStreamingServer() {
		return out, conn.Invoke(ctx, full, in, out)
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, full)
	if err != nil {
		return out, err
	}
	if err := stream.SendMsg(in); err != nil {
		return out, err
	}
	if err := stream.CloseSend(); err != nil {
		return out, err
	}
	return out, stream.RecvMsg(out)
}

// owned makes an organization with one of each in it.
func owned(t *testing.T, s *stack.Stack) tenant {
	t.Helper()
	ada := newPerson(t, s)
	org, _ := expect(t, ada.Client, http.StatusCreated, http.MethodPost, "/api/v1/orgs", map[string]any{"name": "Acme"}).Object("org")["id"].(string)
	mine := ada.in(org)
	made := func(object, path string, body map[string]any) string {
		t.Helper()
		thing := expect(t, mine, http.StatusCreated, http.MethodPost, path, body).Object(object)
		for _, field := range []string{"id", "client_id"} {
			if id, _ := thing[field].(string); id != "" {
				return id
			}
		}
		t.Fatalf("%s made %v", path, thing)
		return ""
	}
	deploys := another(t, s, "walked-"+strings.ToLower(rand.Text()[:8]), "deploy:manage")
	d, _ := expect(t, deploys, http.StatusCreated, http.MethodPost, "/api/deploy/apps",
		map[string]any{"subdomain": name(t, org), "image": s.Image("e2e/none:1"), "tier": "buddo-starter"}).Object("deployment")["id"].(string)
	t.Cleanup(func() { _, _ = deploys.Do(context.Background(), http.MethodDelete, "/api/deploy/apps/"+d, nil) })
	return tenant{org: org, things: map[string]string{
		"DeployService.id": d, "AppService.name": d, "IngressService.name": d, "DomainService.id": d, "DomainService.domain": "walked.example.com", "OrgService.org_id": org, "OrgService.member_id": ada.id,
		"ApiKeyService.id":          made("api_key", "/api/v1/api-keys", map[string]any{"name": "k", "scopes": []string{"deploy:read"}}),
		"EventCredentialService.id": made("event_credential", "/api/v1/event-credentials", map[string]any{"name": "c"}),
		"WebhookService.id":         made("webhook", "/api/v1/webhooks", map[string]any{"url": "https://example.com/hook", "types": []string{"DeploymentRunning"}}),
		"OAuthAppService.id":        granted(t, s, ada), "WebhookService.delivery_id": "msg_0123456789abcdef",
		"OAuthAppService.client_id": made("app", "/api/oauth/apps", map[string]any{"name": "Bot", "redirect_uris": []string{callback}, "scopes": []string{"deploy:read"}}),
	}}
}

const callback = "https://client.example/callback"

// granted lets an app act for a person, and returns the grant's id.
func granted(t *testing.T, s *stack.Stack, p *person) string {
	t.Helper()
	made := expect(t, p.Client, http.StatusCreated, http.MethodPost, "/api/oauth/apps",
		map[string]any{"name": "Bot", "redirect_uris": []string{callback}, "scopes": []string{"deploy:read"}})
	id, _ := made.Object("app")["client_id"].(string)
	verifier := rand.Text() + rand.Text()
	hash := sha256.Sum256([]byte(verifier))
	b := newBrowser(t, s)
	b.get("/api/oauth/authorize?" + url.Values{
		"response_type": {"code"}, "client_id": {id}, "redirect_uri": {callback}, "scope": {"deploy:read"}, "state": {"xyz"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(hash[:])}, "code_challenge_method": {"S256"},
	}.Encode())
	b.submit("/api/oauth/sign-in", "email", p.email, "password", personsPassword)
	b.get(b.location)
	b.submit("/api/oauth/authorize", "decision", "allow")
	back, err := url.Parse(b.location)
	if err != nil {
		t.Fatal(err)
	}
	secret, _ := made.JSON()["client_secret"].(string)
	expect(t, anonymous(s), http.StatusOK, http.MethodPost, "/api/oauth/token", map[string]string{
		"client_id": id, "client_secret": secret, "grant_type": "authorization_code", "code": back.Query().Get("code"), "redirect_uri": callback, "code_verifier": verifier,
	})
	grants := expect(t, p.Client, http.StatusOK, http.MethodGet, "/api/oauth/grants", nil).List("grants")
	if len(grants) != 1 {
		t.Fatalf("there are the grants %v", grants)
	}
	grant, _ := grants[0]["id"].(string)
	return grant
}

// everything is what a credential can hold, but running the platform.
func everything() []string {
	return []string{"deploy:manage", "deploy:read", "apps:write", "billing:read", "events:read"}
}

// strangers are credentials of each kind, of people outside the tenant who may do all in
// organizations of their own.
func strangers(t *testing.T, s *stack.Stack) map[string][]string {
	t.Helper()
	stranger := newPerson(t, s)
	key, _ := expect(t, stranger.Client, http.StatusCreated, http.MethodPost, "/api/v1/api-keys", map[string]any{"name": "k", "scopes": everything()}).JSON()["key"].(string)
	return map[string][]string{
		"a session":       {"authorization", "Bearer " + stranger.Token},
		"an access token": {"authorization", "Bearer " + another(t, s, "stranger-"+strings.ToLower(rand.Text()[:8]), everything()...).Token},
		"an API key":      {"x-api-key", key},
	}
}

func TestNoMethodAnswersForAnotherOrganization(t *testing.T) {
	t.Parallel()
	s := platform(t)
	conn := dial(t, s)
	theirs := owned(t, s)
	credentials := strangers(t, s)
	refused := []codes.Code{codes.PermissionDenied, codes.NotFound}
	methods := public(t, conn)
	walked := map[string]bool{}
	for _, m := range methods {
		walked[string(m.Parent().Name())] = true
	}
	for _, service := range []string{
		"DeployService", "AdminService", "AccountService", "SignUpService", "OrgService", "ApiKeyService", "OAuthAppService", "EventService", "WebhookService",
		"EventCredentialService", "AppService", "IngressService", "DomainService", "DNSAdminService",
	} {
		if !walked[service] {
			t.Fatalf("%s is not walked, only %v", service, walked)
		}
	}
	for _, m := range methods {
		if slices.Contains(forAnybody, string(m.FullName())) {
			continue
		}
		in, named := theirs.request(t, m)
		taken := 0
		for kind, credential := range credentials {
			// Whatever it asks for: not in the name of the other's organization.
			ctx := metadata.AppendToOutgoingContext(t.Context(), append(slices.Clone(credential), "slipway-org", theirs.org)...)
			if _, err := ask(ctx, conn, m, in); !slices.Contains(refused, status.Code(err)) {
				t.Errorf("%s with %s in the other's name: %v", m.FullName(), kind, err)
			}
			if !named && !strings.HasPrefix(string(m.Name()), "List") {
				taken++
				continue
			}
			// In its own name: not what is the other's.
			ctx = metadata.AppendToOutgoingContext(t.Context(), credential...)
			out, err := ask(ctx, conn, m, in)
			switch {
			case status.Code(err) == codes.Unauthenticated: // not for this kind
				continue
			case err == nil && !named:
				for _, id := range theirs.things {
					if strings.Contains(prototext.Format(out), id) {
						t.Errorf("%s with %s shows what is another's: %v", m.FullName(), kind, out)
					}
				}
			case !slices.Contains(refused, status.Code(err)):
				t.Errorf("%s with %s asks for what is another's: %v, %v", m.FullName(), kind, out, err)
			}
			taken++
		}
		if taken == 0 {
			t.Errorf("%s takes no kind of credential that the stranger has", m.FullName())
		}
	}
}

// What REST has beside methods is walked by the document: reads and streams, each for
// what is another's, in its own name and in the other's.
func TestNoPathAnswersForAnotherOrganization(t *testing.T) {
	t.Parallel()
	s := platform(t)
	theirs, credentials := owned(t, s), strangers(t, s)
	paths, _ := expect(t, anonymous(s), http.StatusOK, http.MethodGet, "/openapi.json", nil).JSON()["paths"].(map[string]any)
	walked := 0
	for path, operations := range paths {
		for method, op := range operations.(map[string]any) {
			operation, _ := op.(map[string]any)
			if open, _ := operation["security"].([]any); operation["security"] != nil && len(open) == 0 || method != "get" && method != "delete" {
				continue
			}
			service, _, _ := strings.Cut(fmt.Sprint(operation["operationId"]), "_")
			real, named := path, strings.HasPrefix(path, "/api/v1/admin/")
			for field := range strings.SplitSeq(path, "{") {
				field, _, param := strings.Cut(field, "}")
				if !param {
					continue
				}
				id := theirs.things[service+"."+field]
				if id == "" && !strings.HasSuffix(service, "AdminService") {
					t.Errorf("%s %s names something by %s that the walk does not know: add it to what owned makes", method, path, field)
				}
				real, named = strings.ReplaceAll(real, "{"+field+"}", cmp.Or(id, "x")), true
			}
			if service == "IngressService" && strings.HasSuffix(path, "/logs") {
				real += "?source=router"
			}
			walked++
			taken := 0
			for kind, credential := range credentials {
				for _, org := range []string{theirs.org, ""} {
					if org == "" && !named {
						continue
					}
					c := &client.Client{API: s.API, Header: map[string]string{credential[0]: credential[1]}}
					if org != "" {
						c.Header["Slipway-Org"] = org
					}
					answer := call(t, c, strings.ToUpper(method), real, nil)
					if answer.Status == http.StatusForbidden || answer.Status == http.StatusNotFound {
						taken++
					} else if answer.Status != http.StatusUnauthorized {
						t.Errorf("%s %s with %s for %q: %.300s", method, real, kind, org, answer)
					}
				}
			}
			if taken == 0 {
				t.Errorf("%s %s takes no kind of credential that the stranger has", method, path)
			}
		}
	}
	if walked < 20 || paths["/api/oauth/apps/{client_id}"] == nil || paths["/api/v1/events"] == nil || paths["/api/deploy/apps/{id}/events"] == nil {
		t.Errorf("only %d of %d paths were walked", walked, len(paths))
	}
}
