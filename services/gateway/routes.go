package gateway

import (
	"bytes"
	"context"
	"fmt"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	deployv1 "github.com/slipway-paas/slipway/gen/slipway/deploy/v1"
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

// routes reads the REST methods of the deploy dialect from its descriptor.
func routes() ([]route, error) {
	service := deployv1.File_slipway_deploy_v1_deploy_proto.Services().ByName("DeployService")
	var all []route
	for i := range service.Methods().Len() {
		m := service.Methods().Get(i)
		rule, ok := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
		if !ok || rule == nil {
			continue
		}
		r := route{rpc: fmt.Sprintf("/%s/%s", service.FullName(), m.Name()), hasBody: rule.GetBody() != ""}
		switch p := rule.GetPattern().(type) {
		case *annotations.HttpRule_Get:
			r.method, r.path = http.MethodGet, p.Get
		case *annotations.HttpRule_Post:
			r.method, r.path = http.MethodPost, p.Post
		case *annotations.HttpRule_Delete:
			r.method, r.path = http.MethodDelete, p.Delete
		default:
			return nil, fmt.Errorf("%s is annotated with %T, which the gateway does not serve", m.FullName(), p)
		}
		all = append(all, r)
	}
	return all, nil
}

// translator turns JSON into calls of the deploy dialect and back.
func (d *door) translator(deploy *deployServer) (http.Handler, error) {
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, strictjson.Marshaler{}),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithErrorHandler(func(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
			d.fail(w, r, err)
		}),
		runtime.WithForwardResponseOption(func(_ context.Context, w http.ResponseWriter, m proto.Message) error {
			if _, created := m.(*deployv1.CreateDeploymentResponse); created {
				w.WriteHeader(http.StatusCreated)
			}
			return nil
		}),
	)
	if err := deployv1.RegisterDeployServiceHandlerServer(context.Background(), mux, deploy); err != nil {
		return nil, fmt.Errorf("register the deploy dialect: %w", err)
	}
	return mux, nil
}

// translated authorizes a request, reads its body and hands it on.
func (d *door) translated(rt route, translator http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, err := d.authorize(r, rt.rpc)
		if err != nil {
			d.fail(w, r, err)
			return
		}
		r = r.WithContext(ctx)
		if r.Method == http.MethodHead {
			// The server leaves the body out of the answer by itself.
			r.Method = http.MethodGet
		}
		if r.Method != http.MethodGet {
			body, err := readBody(w, r)
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
		translator.ServeHTTP(w, r)
	}
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

func (d *door) authorize(r *http.Request, rpc string) (context.Context, error) {
	principal, err := d.guard.Authorize(r.Context(), rpc, r.Header["Authorization"])
	if err != nil {
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
