package tier_test

import (
	"math"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/slipway-paas/slipway/services/billing/tier"
)

func TestTheDefaultsAreAValidCatalog(t *testing.T) {
	t.Parallel()
	catalog, err := tier.NewCatalog(tier.Defaults())
	if err != nil {
		t.Fatal(err)
	}
	starter, ok := catalog.Find("buddo-starter")
	if !ok || starter.MemoryLimitMB != 256 || starter.CPULimitMillicores != 250 || starter.CustomDomainAllowed {
		t.Errorf("buddo-starter is %+v, want 256 MB, 250 m and no custom domain", starter)
	}
	pro, ok := catalog.Find("btc-pro")
	if !ok || !pro.CustomDomainAllowed {
		t.Errorf("btc-pro is %+v, want custom domains", pro)
	}
	if _, ok := catalog.Find("gold"); ok {
		t.Error("an unknown slug was found")
	}
}

func TestATierKeepsItsIDForEver(t *testing.T) {
	t.Parallel()
	const released = "e4470c12-774d-59fa-a89d-5696f1fcb0a1"
	id := tier.Tier{Slug: "buddo-starter"}.ID()
	if id != released {
		t.Errorf("the id of buddo-starter is %s and must stay %s: deployments point at it", id, released)
	}
	if parsed, err := uuid.Parse(id); err != nil || parsed.Version() != 5 {
		t.Errorf("%s is no UUID of version 5", id)
	}
	if id == (tier.Tier{Slug: "buddo-pro"}).ID() {
		t.Error("two slugs have one id")
	}
}

func TestAWrongCatalogIsRefusedWithEveryReason(t *testing.T) {
	t.Parallel()
	good := tier.Defaults()[0]
	cost := uint32(1)
	cases := map[string]struct {
		change func(*tier.Tier)
		reason string
	}{
		"bad slug":       {func(t *tier.Tier) { t.Slug = "Gold Tier" }, "slug"},
		"no name":        {func(t *tier.Tier) { t.Name = "" }, "name is empty"},
		"bad payment":    {func(t *tier.Tier) { t.PaymentMethod = "cheque" }, "payment_method"},
		"no price":       {func(t *tier.Tier) { t.MonthlyCostPoints = nil }, "monthly_cost_points"},
		"two prices":     {func(t *tier.Tier) { t.MonthlyCostSats = &cost }, "no monthly_cost_sats"},
		"no memory":      {func(t *tier.Tier) { t.MemoryLimitMB = 0 }, "memory_limit_mb"},
		"no cpu":         {func(t *tier.Tier) { t.CPULimitMillicores = 0 }, "cpu_limit_millicores"},
		"negative reach": {func(t *tier.Tier) { t.AdReachMultiplier = -1 }, "ad_reach_multiplier"},
		"reach NaN":      {func(t *tier.Tier) { t.AdReachMultiplier = math.NaN() }, "ad_reach_multiplier"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wrong := good
			c.change(&wrong)
			_, err := tier.NewCatalog([]tier.Tier{wrong})
			if err == nil || !strings.Contains(err.Error(), c.reason) {
				t.Errorf("got %v, want a reason with %q", err, c.reason)
			}
		})
	}

	twice := []tier.Tier{good, good, {Slug: "empty"}}
	_, err := tier.NewCatalog(twice)
	if err == nil {
		t.Fatal("a catalog with a slug twice was accepted")
	}
	for _, reason := range []string{"already that of tiers[0]", "tiers[2] (empty): name is empty", "tiers[2] (empty): memory_limit_mb"} {
		if !strings.Contains(err.Error(), reason) {
			t.Errorf("%v: lacks %q", err, reason)
		}
	}
	if _, err := tier.NewCatalog(nil); err == nil {
		t.Error("an empty catalog was accepted")
	}
}
