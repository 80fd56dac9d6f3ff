package gateway_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	"github.com/slipway-paas/slipway/services/gateway"
)

// fakeDomains answers what the seeds show.
type fakeDomains struct {
	domainv1.DomainServiceClient
	asked []string
}

func one(app, name string, primary bool) *domainv1.Domain {
	return &domainv1.Domain{Id: "uuid", ApplicationId: app, Domain: name, DomainUnicode: name, IsPrimary: primary,
		CreatedAt: &timestamppb.Timestamp{Seconds: 1771113600}, Status: "pending", Records: []*domainv1.DNSRecord{{Type: "CNAME", Name: name, Value: "a.apps.test"}}}
}

func (f *fakeDomains) ListDomains(_ context.Context, in *domainv1.ListDomainsRequest, _ ...grpc.CallOption) (*domainv1.ListDomainsResponse, error) {
	return &domainv1.ListDomainsResponse{Domains: []*domainv1.Domain{one(in.GetId(), "my-app.example.com", true)}}, nil
}

func (f *fakeDomains) AddDomain(_ context.Context, in *domainv1.AddDomainRequest, _ ...grpc.CallOption) (*domainv1.AddDomainResponse, error) {
	return &domainv1.AddDomainResponse{Domain: one(in.GetId(), in.GetDomain(), in.GetIsPrimary())}, nil
}

func (f *fakeDomains) RemoveDomain(_ context.Context, in *domainv1.RemoveDomainRequest, _ ...grpc.CallOption) (*domainv1.RemoveDomainResponse, error) {
	f.asked = append(f.asked, "remove "+in.GetId()+" "+in.GetDomain())
	return &domainv1.RemoveDomainResponse{}, nil
}

func (f *fakeDomains) VerifyDomain(_ context.Context, in *domainv1.VerifyDomainRequest, _ ...grpc.CallOption) (*domainv1.VerifyDomainResponse, error) {
	f.asked = append(f.asked, "verify "+in.GetId()+" "+in.GetDomain())
	return &domainv1.VerifyDomainResponse{Success: true, Message: "Domain verified successfully"}, nil
}

func (f *fakeDomains) SetPrimaryDomain(_ context.Context, in *domainv1.SetPrimaryDomainRequest, _ ...grpc.CallOption) (*domainv1.SetPrimaryDomainResponse, error) {
	f.asked = append(f.asked, "primary "+in.GetId()+" "+in.GetDomain())
	return &domainv1.SetPrimaryDomainResponse{}, nil
}

// The endpoints are Ployer's, word for word; the fields beside its are ours.
func TestDomainsAreAnsweredAsPloyerDoes(t *testing.T) {
	t.Parallel()
	fake := &fakeDomains{}
	s := begin(t, func(_ *gateway.Config, d *gateway.Deps) { d.Domains = fake })
	want := func(name string, primary bool) map[string]any {
		return map[string]any{
			"id": "uuid", "application_id": "my-app", "domain": name, "is_primary": primary, "ssl_active": false, "created_at": "2026-02-15T00:00:00Z",
			"domain_unicode": name, "status": "pending", "reason": "", "code": "", "verified_at": nil, "next_check_at": nil,
			"records": []any{map[string]any{"type": "CNAME", "name": name, "value": "a.apps.test", "required": false}},
		}
	}
	const path = "/api/v1/applications/my-app/domains"
	same(t, map[string]any{"domains": []any{want("my-app.example.com", true)}}, s.call(t, http.MethodGet, path, "").json(t))
	added := s.call(t, http.MethodPost, path, `{"domain": "app.example.com", "is_primary": false}`)
	if same(t, map[string]any{"domain": want("app.example.com", false)}, added.json(t)); added.status != http.StatusCreated {
		t.Errorf("add answers %d", added.status)
	}
	same(t, map[string]any{"success": true, "message": "Domain verified successfully"}, s.call(t, http.MethodPost, path+"/app.example.com/verify", "").json(t))
	for method, more := range map[string]string{http.MethodDelete: "", http.MethodPost: "/primary"} {
		for _, header := range []string{"X-Nothing: 1", "Idempotency-Key: \"once\""} {
			if got := s.call(t, method, path+"/b%C3%BCcher.example"+more, "", header); got.status != http.StatusNoContent || got.body != "" {
				t.Errorf("%s %s answers %d %q", method, more, got.status, got.body)
			}
		}
	}
	for _, asked := range []string{"remove my-app bücher.example", "primary my-app bücher.example", "verify my-app app.example.com"} {
		if !strings.Contains(strings.Join(fake.asked, "\n"), asked) {
			t.Errorf("nobody was asked to %s: %q", asked, fake.asked)
		}
	}
	if got := s.call(t, http.MethodPost, path, `{"domain": "a.example", "primary": true}`); got.status != http.StatusBadRequest {
		t.Errorf("an unknown field is answered %d", got.status)
	}
	responses := s.call(t, http.MethodGet, "/openapi.json", "").json(t)["paths"].(map[string]any)["/api/v1/applications/{id}/domains/{domain}"].(map[string]any)["delete"].(map[string]any)["responses"].(map[string]any)
	if responses["204"] == nil || responses["200"] != nil {
		t.Errorf("delete is described with %v", responses)
	}
}
