// Package tier holds what a tier is: a price and the limits it buys. It is pure;
// a Catalog is checked when it is made and never changes.
package tier

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/google/uuid"
)

// Methods of payment.
const (
	Points  = "buddo_points"
	Bitcoin = "bitcoin"
)

// Tier is one offer. Costs are whole points or sats a month, and nil when the tier
// is not paid that way.
type Tier struct {
	// Name is shown to people, Slug is what a create request names.
	Name string `koanf:"name"`
	Slug string `koanf:"slug"`
	// PaymentMethod is Points or Bitcoin.
	PaymentMethod     string  `koanf:"payment_method"`
	MonthlyCostPoints *uint32 `koanf:"monthly_cost_points"`
	MonthlyCostSats   *uint32 `koanf:"monthly_cost_sats"`
	// MemoryLimitMB and CPULimitMillicores bound each instance.
	MemoryLimitMB        uint32  `koanf:"memory_limit_mb"`
	CPULimitMillicores   uint32  `koanf:"cpu_limit_millicores"`
	CustomDomainAllowed  bool    `koanf:"custom_domain_allowed"`
	MonthlyStipendPoints uint32  `koanf:"monthly_stipend_points"`
	AdReachMultiplier    float64 `koanf:"ad_reach_multiplier"`
	// MaxDeployments is how many live deployments an operator may have on the tier;
	// 0 means no limit.
	MaxDeployments uint32 `koanf:"max_deployments"`
}

// ID is the tier's UUID. It is made from the slug, so that it stays the same on
// every platform and across restarts.
func (t Tier) ID() string {
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte("slipway/tier/"+t.Slug)).String()
}

// Limits that hold for any tier: under MinMemoryMB no container starts.
const (
	MinMemoryMB = 6
	MaxMemoryMB = 1 << 20
	MinCPU      = 10
	MaxCPU      = 1 << 20
	maxTiers    = 100
)

var slugPattern = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$`)

// validate returns every reason why the tier cannot be offered.
func (t Tier) validate() []error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if !slugPattern.MatchString(t.Slug) {
		fault("slug %q: use 1-64 lowercase letters, digits and inner hyphens", t.Slug)
	}
	if t.Name == "" {
		fault("name is empty")
	}
	switch t.PaymentMethod {
	case Points:
		if t.MonthlyCostPoints == nil || t.MonthlyCostSats != nil {
			fault("payment_method %s needs monthly_cost_points and no monthly_cost_sats", Points)
		}
	case Bitcoin:
		if t.MonthlyCostSats == nil || t.MonthlyCostPoints != nil {
			fault("payment_method %s needs monthly_cost_sats and no monthly_cost_points", Bitcoin)
		}
	default:
		fault("payment_method %q: use %s or %s", t.PaymentMethod, Points, Bitcoin)
	}
	if t.MemoryLimitMB < MinMemoryMB || t.MemoryLimitMB > MaxMemoryMB {
		fault("memory_limit_mb %d: use %d to %d", t.MemoryLimitMB, MinMemoryMB, MaxMemoryMB)
	}
	if t.CPULimitMillicores < MinCPU || t.CPULimitMillicores > MaxCPU {
		fault("cpu_limit_millicores %d: use %d to %d", t.CPULimitMillicores, MinCPU, MaxCPU)
	}
	// Written so that NaN is refused too.
	if !(t.AdReachMultiplier >= 0 && t.AdReachMultiplier <= 1000) {
		fault("ad_reach_multiplier %v: use 0 to 1000", t.AdReachMultiplier)
	}
	return faults
}

// Catalog is all tiers on offer, in the order they were configured.
type Catalog struct {
	tiers  []Tier
	bySlug map[string]int
}

// NewCatalog checks the tiers and returns every fault found, joined.
func NewCatalog(tiers []Tier) (*Catalog, error) {
	c := &Catalog{tiers: append([]Tier(nil), tiers...), bySlug: make(map[string]int, len(tiers))}
	var faults []error
	if len(tiers) == 0 || len(tiers) > maxTiers {
		faults = append(faults, fmt.Errorf("tiers: %d are configured, use 1 to %d", len(tiers), maxTiers))
	}
	for i, t := range c.tiers {
		for _, err := range t.validate() {
			faults = append(faults, fmt.Errorf("tiers[%d] (%s): %w", i, t.Slug, err))
		}
		if first, taken := c.bySlug[t.Slug]; taken {
			faults = append(faults, fmt.Errorf("tiers[%d] (%s): slug is already that of tiers[%d]", i, t.Slug, first))
			continue
		}
		c.bySlug[t.Slug] = i
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return c, nil
}

// All returns the tiers; the caller owns the slice.
func (c *Catalog) All() []Tier { return append([]Tier(nil), c.tiers...) }

// Find returns the tier with that slug.
func (c *Catalog) Find(slug string) (Tier, bool) {
	i, ok := c.bySlug[slug]
	if !ok {
		return Tier{}, false
	}
	return c.tiers[i], true
}
