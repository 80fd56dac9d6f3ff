package scenarios

import (
	"context"
	"crypto/rand"
	"net/http"
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

	"github.com/slipway-paas/slipway/e2e/stack"
)

// forAnybody are the methods that need no credential; all others are bound to an
// organization.
var forAnybody = []string{
	"slipway.identity.v1.AccountService.Register", "slipway.identity.v1.SignUpService.SignUp", "slipway.identity.v1.AccountService.Login",
	"slipway.identity.v1.AccountService.VerifyEmail", "slipway.identity.v1.AccountService.SendVerification",
	"slipway.identity.v1.AccountService.ForgotPassword", "slipway.identity.v1.AccountService.ResetPassword",
}

// tenant is what belongs to one organization, by the names that requests have for it.
type tenant struct {
	org, member, deployment, key string
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
func (o tenant) request(m protoreflect.MethodDescriptor) (in *dynamicpb.Message, named bool) {
	in = dynamicpb.NewMessage(m.Input())
	// What is the platform's is no organization's.
	named = strings.HasPrefix(string(m.FullName()), "slipway.admin.")
	for i := range m.Input().Fields().Len() {
		f := m.Input().Fields().Get(i)
		if f.Kind() != protoreflect.StringKind || f.IsList() || f.IsMap() {
			continue
		}
		value := map[protoreflect.Name]string{"org_id": o.org, "member_id": o.member, "id": o.deployment, "deployment_id": o.deployment}[f.Name()]
		if f.Name() == "id" && strings.Contains(string(m.FullName()), "ApiKey") {
			value = o.key
		}
		if value != "" {
			in.Set(f, protoreflect.ValueOfString(value))
			named = true
		}
		if f.Name() == "role" {
			in.Set(f, protoreflect.ValueOfString("viewer"))
		}
		if f.Name() == "email" {
			in.Set(f, protoreflect.ValueOfString("eve@example.com"))
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

// owned makes an organization with a member, a deployment and a key in it.
func owned(t *testing.T, s *stack.Stack) tenant {
	t.Helper()
	ada := newPerson(t, s)
	org, _ := expect(t, ada.Client, http.StatusCreated, http.MethodPost, "/api/v1/orgs", map[string]any{"name": "Acme"}).Object("org")["id"].(string)
	key, _ := expect(t, ada.in(org), http.StatusCreated, http.MethodPost, "/api/v1/api-keys", map[string]any{"name": "k", "scopes": []string{"deploy:read"}}).Object("api_key")["id"].(string)
	deploys := another(t, s, "walked-"+strings.ToLower(rand.Text()[:8]), "deploy:manage")
	d, _ := expect(t, deploys, http.StatusCreated, http.MethodPost, "/api/deploy/apps",
		map[string]any{"subdomain": name(t, org), "image": s.Image("e2e/none:1"), "tier": "buddo-starter"}).Object("deployment")["id"].(string)
	t.Cleanup(func() { _, _ = deploys.Do(context.Background(), http.MethodDelete, "/api/deploy/apps/"+d, nil) })
	return tenant{org: org, member: ada.id, deployment: d, key: key}
}

func TestNoMethodAnswersForAnotherOrganization(t *testing.T) {
	t.Parallel()
	s := platform(t)
	conn := dial(t, s)
	theirs := owned(t, s)
	stranger := newPerson(t, s)
	key, _ := expect(t, stranger.Client, http.StatusCreated, http.MethodPost, "/api/v1/api-keys",
		map[string]any{"name": "k", "scopes": []string{"deploy:manage", "deploy:read", "apps:write", "billing:read", "events:read"}}).JSON()["key"].(string)
	credentials := map[string][]string{
		"a session":       {"authorization", "Bearer " + stranger.Token},
		"an access token": {"authorization", "Bearer " + another(t, s, "stranger-"+strings.ToLower(rand.Text()[:8]), "deploy:manage", "deploy:read").Token},
		"an API key":      {"x-api-key", key},
	}
	refused := []codes.Code{codes.PermissionDenied, codes.NotFound}
	methods := public(t, conn)
	if len(methods) < 30 {
		t.Fatalf("only %d methods", len(methods))
	}
	for _, m := range methods {
		if slices.Contains(forAnybody, string(m.FullName())) {
			continue
		}
		in, named := theirs.request(m)
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
				for _, id := range []string{theirs.org, theirs.member, theirs.deployment, theirs.key} {
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
