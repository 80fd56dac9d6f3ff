package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	adminv1 "github.com/slipway-paas/slipway/gen/slipway/admin/v1"
	appsv1 "github.com/slipway-paas/slipway/gen/slipway/apps/v1"
	deployv1 "github.com/slipway-paas/slipway/gen/slipway/deploy/v1"
	dnsv1 "github.com/slipway-paas/slipway/gen/slipway/dns/v1"
	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	oauthv1 "github.com/slipway-paas/slipway/gen/slipway/oauth/v1"
	streamv1 "github.com/slipway-paas/slipway/gen/slipway/stream/v1"
	webhooksv1 "github.com/slipway-paas/slipway/gen/slipway/webhooks/v1"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/gateway/authn"
	"github.com/slipway-paas/slipway/services/gateway/strictjson"
)

// route is one REST method as the schema annotates it.
type route struct {
	method, path string
	// rpc is the full name of the gRPC method behind it.
	rpc string
	// hasBody says whether the body is the request message.
	hasBody bool
}

func (r route) pattern() string { return r.method + " " + r.path }

// dialects are the services that the schema gives REST methods to.
func dialects() []protoreflect.ServiceDescriptor {
	return []protoreflect.ServiceDescriptor{
		deployv1.File_slipway_deploy_v1_deploy_proto.Services().ByName("DeployService"),
		appsv1.File_slipway_apps_v1_apps_proto.Services().ByName("AppService"),
		appsv1.File_slipway_apps_v1_ingress_proto.Services().ByName("IngressService"),
		adminv1.File_slipway_admin_v1_admin_proto.Services().ByName("AdminService"),
		identityv1.File_slipway_identity_v1_accounts_proto.Services().ByName("AccountService"),
		identityv1.File_slipway_identity_v1_accounts_proto.Services().ByName("SignUpService"),
		identityv1.File_slipway_identity_v1_orgs_proto.Services().ByName("OrgService"),
		identityv1.File_slipway_identity_v1_apikeys_proto.Services().ByName("ApiKeyService"),
		identityv1.File_slipway_identity_v1_eventcredentials_proto.Services().ByName("EventCredentialService"),
		oauthv1.File_slipway_oauth_v1_oauth_proto.Services().ByName("OAuthAppService"),
		webhooksv1.File_slipway_webhooks_v1_webhooks_proto.Services().ByName("WebhookService"),
		domainv1.File_slipway_domain_v1_domains_proto.Services().ByName("DomainService"),
		dnsv1.File_slipway_dns_v1_dns_proto.Services().ByName("DNSAdminService"),
	}
}

// longest is how long a method may take that answers when long work is done; zero for
// the others.
func longest(rpc string) time.Duration {
	switch rpc {
	case adminv1.AdminService_RebuildProjection_FullMethodName:
		return rebuildTimeout
	case adminv1.AdminService_RotateKeys_FullMethodName:
		return rotationTimeout
	}
	return 0
}

// bodyOptional says whether a method's body may be left out.
func bodyOptional(rpc string) bool { return rpc == appsv1.AppService_RollbackApp_FullMethodName }

// routes reads the REST methods of services from their descriptors.
func routes(services ...protoreflect.ServiceDescriptor) ([]route, error) {
	var all []route
	for _, service := range services {
		for i := range service.Methods().Len() {
			m := service.Methods().Get(i)
			rule, ok := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
			if !ok || rule == nil {
				continue
			}
			for _, binding := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
				r := route{rpc: fmt.Sprintf("/%s/%s", service.FullName(), m.Name()), hasBody: binding.GetBody() != ""}
				switch p := binding.GetPattern().(type) {
				case *annotations.HttpRule_Get:
					r.method, r.path = http.MethodGet, p.Get
				case *annotations.HttpRule_Post:
					r.method, r.path = http.MethodPost, p.Post
				case *annotations.HttpRule_Put:
					r.method, r.path = http.MethodPut, p.Put
				case *annotations.HttpRule_Delete:
					r.method, r.path = http.MethodDelete, p.Delete
				default:
					return nil, fmt.Errorf("%s is annotated with %T, which the gateway does not serve", m.FullName(), p)
				}
				all = append(all, r)
			}
		}
	}
	return all, nil
}

// registrar puts the dialects on what translates JSON to their methods.
type registrar func(*runtime.ServeMux) error

// created are the answers that say 201.
func created(m proto.Message) bool {
	switch m.(type) {
	case *deployv1.CreateDeploymentResponse, *identityv1.CreateOrgResponse, *identityv1.InviteMemberResponse, *identityv1.CreateApiKeyResponse, *identityv1.CreateEventCredentialResponse,
		*oauthv1.RegisterAppResponse, *webhooksv1.CreateWebhookResponse, *domainv1.AddDomainResponse:
		return true
	}
	return false
}

// empty are the answers that say 204.
func empty(m proto.Message) bool {
	switch m.(type) {
	case *domainv1.RemoveDomainResponse, *domainv1.SetPrimaryDomainResponse:
		return true
	}
	return false
}

// dialectServers are what answers the public API's methods, over gRPC and REST alike.
type dialectServers struct {
	deploy   *deployServer
	appModel *appModelServer
	admin    *adminServer
	accounts *accountServer
	orgs     *orgServer
	keys     *keyServer
	apps     *appServer
	events   *eventServer
	webhooks *webhookServer

	eventCredentials *eventCredentialServer
	domains          *domainServer
	dns              *dnsServer
	ingress          *ingressServer
}

func (s dialectServers) grpc(r grpc.ServiceRegistrar) {
	deployv1.RegisterDeployServiceServer(r, s.deploy)
	appsv1.RegisterAppServiceServer(r, s.appModel)
	adminv1.RegisterAdminServiceServer(r, s.admin)
	identityv1.RegisterAccountServiceServer(r, s.accounts)
	identityv1.RegisterSignUpServiceServer(r, s.accounts)
	identityv1.RegisterOrgServiceServer(r, s.orgs)
	identityv1.RegisterApiKeyServiceServer(r, s.keys)
	identityv1.RegisterEventCredentialServiceServer(r, s.eventCredentials)
	oauthv1.RegisterOAuthAppServiceServer(r, s.apps)
	streamv1.RegisterEventServiceServer(r, s.events)
	webhooksv1.RegisterWebhookServiceServer(r, s.webhooks)
	domainv1.RegisterDomainServiceServer(r, s.domains)
	dnsv1.RegisterDNSAdminServiceServer(r, s.dns)
	appsv1.RegisterIngressServiceServer(r, s.ingress)
}

func (s dialectServers) rest(mux *runtime.ServeMux) error {
	ctx := context.Background()
	return errors.Join(
		deployv1.RegisterDeployServiceHandlerServer(ctx, mux, s.deploy),
		appsv1.RegisterAppServiceHandlerServer(ctx, mux, s.appModel),
		adminv1.RegisterAdminServiceHandlerServer(ctx, mux, s.admin),
		identityv1.RegisterAccountServiceHandlerServer(ctx, mux, s.accounts),
		identityv1.RegisterSignUpServiceHandlerServer(ctx, mux, s.accounts),
		identityv1.RegisterOrgServiceHandlerServer(ctx, mux, s.orgs),
		identityv1.RegisterApiKeyServiceHandlerServer(ctx, mux, s.keys),
		identityv1.RegisterEventCredentialServiceHandlerServer(ctx, mux, s.eventCredentials),
		oauthv1.RegisterOAuthAppServiceHandlerServer(ctx, mux, s.apps),
		webhooksv1.RegisterWebhookServiceHandlerServer(ctx, mux, s.webhooks),
		domainv1.RegisterDomainServiceHandlerServer(ctx, mux, s.domains),
		dnsv1.RegisterDNSAdminServiceHandlerServer(ctx, mux, s.dns),
		appsv1.RegisterIngressServiceHandlerServer(ctx, mux, s.ingress),
	)
}

// translator turns JSON into calls and back.
func (d *door) translator(register registrar) (http.Handler, error) {
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, strictjson.Marshaler{}),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithErrorHandler(func(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
			d.fail(w, r, err)
		}),
		runtime.WithForwardResponseOption(func(_ context.Context, w http.ResponseWriter, m proto.Message) error {
			switch {
			case created(m):
				w.WriteHeader(http.StatusCreated)
			case empty(m):
				// What would be written of the message is left out by the server.
				w.Header().Del("Content-Type")
				w.WriteHeader(http.StatusNoContent)
			}
			return nil
		}),
	)
	if err := register(mux); err != nil {
		return nil, fmt.Errorf("register the REST methods: %w", err)
	}
	return mux, nil
}

// translated authorizes a request, reads its body and hands it on.
func (d *door) translated(rt route, translator http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, err := d.authorize(w, r, rt.rpc)
		if err != nil {
			d.fail(w, r, err)
			return
		}
		r = r.WithContext(ctx)
		if limit := longest(rt.rpc); limit > 0 {
			d.allow(w, r, limit)
		}
		if r.Method == http.MethodHead {
			// The server leaves the body out of the answer by itself.
			r.Method = http.MethodGet
		}
		var body []byte
		if r.Method != http.MethodGet {
			body, err = readBody(w, r)
			if err == nil && bodyOptional(rt.rpc) && len(bytes.TrimSpace(body)) == 0 {
				body = []byte("{}")
			}
			if err == nil && !rt.hasBody && len(bytes.TrimSpace(body)) > 0 {
				err = strictjson.Unmarshal(body, &emptypb.Empty{})
			}
			if err != nil {
				d.fail(w, r, err)
				return
			}
			r.Body = readCloser{bytes.NewReader(body)}
		} else {
			r.Body = http.NoBody
		}
		d.once(w, r, body, translator)
	}
}

// allow gives an answer longer than others may take.
func (d *door) allow(w http.ResponseWriter, r *http.Request, limit time.Duration) {
	until := d.now().Add(limit + requestTimeout)
	rc := http.NewResponseController(w)
	if err := errors.Join(rc.SetReadDeadline(until), rc.SetWriteDeadline(until)); err != nil {
		d.log.WarnContext(r.Context(), "a long answer keeps its deadline", "error", err)
	}
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

// authorize finds out who calls and counts the call. Errors are *problem.Error: those
// of authn.Guard, and 429.
func (d *door) authorize(w http.ResponseWriter, r *http.Request, rpc string) (context.Context, error) {
	principal, err := d.guard.Authorize(r.Context(), rpc, authn.FromHeader(r.Header))
	if err != nil {
		return nil, err
	}
	if err := d.limitREST(w, r, principal, rpc); err != nil {
		return nil, err
	}
	return authn.WithPrincipal(r.Context(), principal), nil
}

// fail answers with the one shape of errors, and logs what is our own fault.
func (d *door) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := problem.From(err)
	// A bare problem was logged where it was made, if it was ours.
	_, bare := err.(*problem.Error)
	if p.Status >= http.StatusInternalServerError && !bare {
		d.log.ErrorContext(r.Context(), "could not answer", "method", r.Method, "path", r.URL.Path, "request_id", requestID(r.Context()), "error", err)
	}
	p.Write(w)
}
