package cloudflare_test

import (
	"fmt"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	fake "github.com/slipway-paas/slipway/e2e/fakes/cloudflare"
	"github.com/slipway-paas/slipway/services/dns/cloudflare"
	"github.com/slipway-paas/slipway/services/dns/zone"
	"github.com/slipway-paas/slipway/services/dns/zonetest"
)

func open(t *testing.T, c cloudflare.Config) zone.Provider {
	t.Helper()
	client, err := cloudflare.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func serve(t *testing.T, o fake.Options) (*fake.Server, string) {
	t.Helper()
	api := fake.New(o)
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	return api, server.URL + "/client/v4"
}

func TestTheAdapterKeepsTheContractAgainstTheFake(t *testing.T) {
	t.Parallel()
	for name, lag := range map[string]time.Duration{"at once": 0, "reads lag": 150 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			zones := []string{"example.test"}
			for i := range 7 { // more than a page
				zones = append(zones, fmt.Sprintf("z%d.test", i))
			}
			api, url := serve(t, fake.Options{Zones: zones})
			api.Lag(lag)
			zonetest.Run(t, zonetest.Subject{
				Open: func(t *testing.T, owner string) zone.Provider {
					return open(t, cloudflare.Config{Token: "fake-token", Owner: owner, URL: url, PageSize: 5, PerWindow: 1_000_000})
				},
				Zone: "z6.test", Lag: lag, Tunnels: true,
			})
		})
	}
}

// The same suite against Cloudflare itself, in a zone that may be played in. The tokens
// are of the test's own, so that nothing takes a platform's by mistake.
func TestTheAdapterKeepsTheContractAgainstCloudflare(t *testing.T) {
	t.Parallel()
	token, apex := os.Getenv("CLOUDFLARE_TEST_TOKEN"), os.Getenv("CLOUDFLARE_TEST_ZONE")
	if token == "" || apex == "" {
		// Printed, and no skip: what was not tried must be seen in every run's output.
		fmt.Println("services/dns: the Cloudflare adapter was held to its contract against the fake API only; set CLOUDFLARE_TEST_TOKEN and CLOUDFLARE_TEST_ZONE to hold it to the real one too")
		return
	}
	zonetest.Run(t, zonetest.Subject{
		Open: func(t *testing.T, owner string) zone.Provider {
			return open(t, cloudflare.Config{Token: token, Owner: owner, PageSize: 5})
		},
		Zone: apex, Lag: 10 * time.Second, Tunnels: os.Getenv("CLOUDFLARE_TEST_TUNNELS") != "",
	})
}
