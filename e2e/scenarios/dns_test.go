package scenarios

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/slipway-paas/slipway/e2e/fakes/cloudflare"
	"github.com/slipway-paas/slipway/e2e/stack"
	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// TestACustomDomainInAZoneOfOursGetsItsRecordByItself: the platform holds a zone at
// Cloudflare that it shares; whose domain lies in it need not know of DNS at all.
func TestACustomDomainInAZoneOfOursGetsItsRecordByItself(t *testing.T) {
	t.Parallel()
	const token, base, shared = "cf-token-that-nobody-shall-see", "apps.dns-story.test", "customers.test"
	api := cloudflare.New(cloudflare.Options{Token: token, Zones: []string{"dns-story.test", shared}})
	api.Lag(200 * time.Millisecond)
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	s := own(t, stack.Standalone, stack.Options{BaseDomain: base, Env: []string{
		"SLIPWAY_CLOUDFLARE_TOKEN=" + token, "SLIPWAY_CLOUDFLARE_URL=" + server.URL + "/client/v4",
		"SLIPWAY_DNS_ZONES=" + shared + "=*", "SLIPWAY_DNS_EDGE_ADDRESSES=192.0.2.1", "SLIPWAY_DNS_SETTLE=300ms",
	}})
	holds := func(zone string, want ...string) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s holds %q", zone, want), func(context.Context) (bool, string, error) {
			var got []string
			for _, r := range api.Records(zone) {
				got = append(got, r.Name+" "+r.Type+" "+r.Content)
			}
			slices.Sort(got)
			return slices.Equal(got, want), fmt.Sprintf("it holds %q", got), nil
		})
	}
	edge := []string{"*." + base + " A 192.0.2.1", base + " A 192.0.2.1"}
	holds("dns-story.test", edge...)

	js, closeIt, err := s.ConnectNATS("dns story")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closeIt)
	log := jetstream.New(js, slog.New(slog.DiscardHandler))
	domain := func(name string, e proto.Message) {
		t.Helper()
		of := subjects.Of("acme", subjects.Domain, strings.ReplaceAll(name, ".", "-"))
		if _, err := log.Record(t.Context(), eventstore.Event{Aggregate: of, ID: uuid.NewString(), Payload: e, Time: time.Now(), Source: "domains"}); err != nil {
			t.Fatal(err)
		}
	}
	api.Outage(true) // it is only later, then
	target := "shop." + base
	domain("shop.customers.test", &domainv1.DomainAdded{DomainId: "d1", Name: "shop.customers.test", Target: target})
	domain("www.dns-story.test", &domainv1.DomainAdded{DomainId: "d2", Name: "www.dns-story.test", Target: target})
	api.Outage(false)
	holds(shared, "shop.customers.test CNAME "+target)
	holds("dns-story.test", edge...) // the platform's own zone is nobody else's

	c := s.Client()
	eventually(t, "the admin sees it", func(ctx context.Context) (bool, string, error) {
		answer, err := c.Do(ctx, http.MethodGet, "/api/v1/admin/dns", nil)
		got := answer.JSON()
		return err == nil && got["wanted"] == 4.0 && got["applied"] == 3.0 && got["failed"] == 1.0, answer.String(), err
	})
	made := expect(t, c, http.StatusOK, http.MethodPost, "/api/v1/admin/dns/tunnels", map[string]any{"name": "home"}).Object("tunnel")
	if made["status"] != "ready" {
		t.Errorf("the tunnel is %v", made)
	}
	tunnel := fmt.Sprintf("%v.cfargotunnel.com", made["tunnel_id"])
	holds("dns-story.test", "*."+base+" CNAME "+tunnel, base+" CNAME "+tunnel)
	holds(shared, "shop.customers.test CNAME "+tunnel)
	secret := expect(t, c, http.StatusOK, http.MethodPost, "/api/v1/admin/dns/tunnels/home/token", nil).JSON()["token"]
	expect(t, c, http.StatusOK, http.MethodDelete, "/api/v1/admin/dns/tunnels/home", nil)
	holds("dns-story.test", edge...)

	domain("shop.customers.test", &domainv1.DomainRemoved{})
	holds(shared)
	metrics, err := s.Client().Do(t.Context(), http.MethodGet, "/metrics", nil)
	if err != nil || !strings.Contains(string(metrics.Body), "slipway_dns_zones 2") {
		t.Errorf("the metrics do not tell of two zones: %v", err)
	}
	if tails := s.Tails(); strings.Contains(tails, token) || secret == nil || strings.Contains(tails, fmt.Sprint(secret)) {
		t.Error("a token is in the logs")
	}
}
