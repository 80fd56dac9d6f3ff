package gateway_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	deployv1 "github.com/slipway-paas/slipway/gen/slipway/deploy/v1"
	"github.com/slipway-paas/slipway/services/gateway"
)

// limited is a gateway with the seed's limits.
func limited(t *testing.T, change ...func(*gateway.Config, *gateway.Deps)) *stage {
	t.Helper()
	change = append(change, func(c *gateway.Config, _ *gateway.Deps) {
		c.RateLimits.Reads, c.RateLimits.Writes, c.RateLimits.SignIns = 30, 10, 10
	})
	return begin(t, change...)
}

func TestEveryEndpointHasItsLimit(t *testing.T) {
	t.Parallel()
	endpoints := []struct {
		method, path string
		quota        int
	}{
		{"GET", "/api/deploy/tiers", 30}, {"POST", "/api/deploy/apps", 10}, {"GET", "/api/deploy/apps", 30},
		{"GET", "/api/deploy/apps/{id}", 30}, {"GET", "/api/deploy/apps/{id}/status", 30}, {"GET", "/api/deploy/apps/{id}/logs", 30},
		{"POST", "/api/deploy/apps/{id}/restart", 10}, {"POST", "/api/deploy/apps/{id}/stop", 10}, {"DELETE", "/api/deploy/apps/{id}", 10},
		{"HEAD", "/api/deploy/apps/{id}/events", 30}, {"POST", "/api/v1/auth/login", 10}, {"POST", "/api/auth/register", 10},
	}
	for _, e := range endpoints {
		t.Run(e.method+" "+e.path, func(t *testing.T) {
			t.Parallel()
			s := limited(t)
			id := s.requested(t)
			eventually(t, "the view knows it", func() bool {
				return s.call(t, "GET", "/api/deploy/apps/"+id+"/status", "", "Authorization: Bearer "+strangerToken).status == 403
			})
			path := strings.ReplaceAll(e.path, "{id}", id)
			for i := range e.quota {
				got := s.call(t, e.method, path, "")
				if got.status == 429 {
					t.Fatalf("request %d of %d: %s", i+1, e.quota, got.body)
				}
				name := map[int]string{30: "reads", 10: "writes"}[e.quota]
				if strings.Contains(path, "auth") {
					name = "sign-ins"
				}
				same(t, fmt.Sprintf(`%q;q=%d;w=60`, name, e.quota), got.header.Get("RateLimit-Policy"))
				if left := fmt.Sprintf(`%q;r=%d;t=`, name, e.quota-1-i); !strings.HasPrefix(got.header.Get("RateLimit"), left) {
					t.Fatalf("request %d: RateLimit: %s, want %s…", i+1, got.header.Get("RateLimit"), left)
				}
			}
			got := s.call(t, e.method, path, "")
			if got.status != 429 || !strings.Contains(got.header.Get("RateLimit"), ";r=0;") {
				t.Fatalf("one more: %d %v", got.status, got.header)
			}
			after, err := strconv.Atoi(got.header.Get("Retry-After"))
			if err != nil || after < 1 || after > 61 {
				t.Errorf("Retry-After: %q", got.header.Get("Retry-After"))
			}
			if e.method != "HEAD" && (got.json(t)["code"] != "rate_limited" || got.header.Get("Content-Type") != "application/problem+json") {
				t.Errorf("refused with %s", got.body)
			}
			if strings.Contains(path, "auth") {
				return
			}
			// Others are not refused with it, and neither is the operator elsewhere.
			if other := s.call(t, e.method, path, "", "Authorization: Bearer "+strangerToken); other.status == 429 {
				t.Error("another operator was refused")
			}
			if other := s.call(t, "GET", "/api/v1/health", ""); other.status != 200 || other.header.Get("RateLimit") != "" {
				t.Errorf("health: %d %v", other.status, other.header)
			}
		})
	}
}

func TestGRPCAndRESTShareOneLimit(t *testing.T) {
	t.Parallel()
	s := limited(t)
	for range 20 {
		s.call(t, "GET", "/api/deploy/tiers", "")
	}
	conn, err := grpc.NewClient(s.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+ownerToken)
	var header metadata.MD
	for range 10 {
		if _, err := deployv1.NewDeployServiceClient(conn).ListTiers(ctx, &deployv1.ListTiersRequest{}, grpc.Header(&header)); err != nil {
			t.Fatal(err)
		}
	}
	if got := header.Get("ratelimit"); len(got) != 1 || !strings.HasPrefix(got[0], `"reads";r=0;t=`) {
		t.Errorf("ratelimit: %v", got)
	}
	_, err = deployv1.NewDeployServiceClient(conn).ListTiers(ctx, &deployv1.ListTiersRequest{})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("the 31st over gRPC: %v", err)
	}
	if got := s.call(t, "GET", "/api/deploy/tiers", ""); got.status != 429 {
		t.Errorf("the 31st over REST: %d", got.status)
	}
}

func TestARefusedPollIsCountedAsSuch(t *testing.T) {
	t.Parallel()
	metrics := prometheus.NewRegistry()
	s := limited(t, func(_ *gateway.Config, d *gateway.Deps) { d.Metrics = metrics })
	id := s.requested(t)
	eventually(t, "the polls are used up", func() bool { return s.call(t, "GET", "/api/deploy/apps/"+id+"/status", "").status == 429 })
	all, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]uint64{}
	for _, family := range all {
		for _, m := range family.GetMetric() {
			labels := family.GetName()
			for _, l := range m.GetLabel() {
				labels += " " + l.GetValue()
			}
			seen[labels] = m.GetHistogram().GetSampleCount() + uint64(m.GetCounter().GetValue())
		}
	}
	for _, want := range []string{"slipway_gateway_request_seconds GET /api/deploy/apps/{id}/status 429", "slipway_gateway_rate_limited_total reads"} {
		if seen[want] != 1 {
			t.Errorf("%s is %d: %v", want, seen[want], seen)
		}
	}
}

func TestAddressesAreLimitedOneByOne(t *testing.T) {
	t.Parallel()
	s := limited(t, func(c *gateway.Config, _ *gateway.Deps) {
		c.RateLimits.TrustedProxies = []string{"127.0.0.0/8", "10.0.0.0/8"}
	})
	try := func(forwarded string) int {
		return s.call(t, "POST", "/api/v1/auth/login", `{}`, "X-Forwarded-For: "+forwarded).status
	}
	for range 10 {
		try("203.0.113.9")
	}
	for forwarded, refused := range map[string]bool{
		"203.0.113.9":               true,
		"198.51.100.1, 203.0.113.9": true, // what a client claims of itself
		"203.0.113.9, 10.1.2.3":     true, // over one more proxy
		"203.0.113.10":              false,
		"203.0.113.9, 198.51.100.1": false,
		"203.0.113.9, nonsense":     false,
		"":                          false,
	} {
		if got := try(forwarded); (got == 429) != refused {
			t.Errorf("from %q: %d", forwarded, got)
		}
	}
	for i := range 10 {
		try(fmt.Sprintf("2001:db8:0:7::%x", i))
	}
	if got := try("2001:db8:0:7:1:2:3:4"); got != 429 {
		t.Errorf("another address of the same network: %d", got)
	}
	if got := try("2001:db8:0:8::1"); got == 429 {
		t.Error("another network was refused")
	}
}

func TestAnAddressCannotBeMadeUpWithoutAProxy(t *testing.T) {
	t.Parallel()
	s := limited(t)
	for range 10 {
		s.call(t, "POST", "/api/auth/login", `{}`, "X-Forwarded-For: "+uuid.NewString())
	}
	if got := s.call(t, "POST", "/api/auth/login", `{}`, "X-Forwarded-For: 203.0.113.1"); got.status != 429 {
		t.Errorf("with a header of its own: %d", got.status)
	}
	// Made-up paths do not each have a quota.
	refused := false
	for i := range 12 {
		refused = s.call(t, "POST", "/api/auth/"+strconv.Itoa(i), `{}`).status == 429
	}
	if !refused {
		t.Error("made-up paths are not limited")
	}
}

func TestAQuotaComesBackAfterAMinute(t *testing.T) {
	t.Parallel()
	now := newClock()
	s := limited(t, func(_ *gateway.Config, d *gateway.Deps) { d.Now = now.now })
	for range 10 {
		s.call(t, "POST", "/api/deploy/apps", "{}")
	}
	got := s.call(t, "POST", "/api/deploy/apps", "{}")
	if got.status != 429 {
		t.Fatalf("the 11th: %d", got.status)
	}
	after, err := strconv.Atoi(got.header.Get("Retry-After"))
	if err != nil {
		t.Fatal(err)
	}
	now.advance(time.Duration(after) * time.Second)
	if got := s.call(t, "POST", "/api/deploy/apps", "{}"); got.status == 429 {
		t.Error("refused after waiting as told")
	}
}

func TestLimitsThatMakeNoSenseAreRefused(t *testing.T) {
	t.Parallel()
	for _, bad := range []gateway.RateLimits{{Reads: -1}, {Writes: 2_000_000_000}, {TrustedProxies: []string{"10.0.0.1"}}} {
		if err := bad.Validate(); err == nil {
			t.Errorf("%+v is fine", bad)
		}
	}
}
