package tier

// Defaults are the tiers of a platform that configures none.
func Defaults() []Tier {
	cost := func(n uint32) *uint32 { return &n }
	return []Tier{
		{
			Name: "Buddo Starter", Slug: "buddo-starter", PaymentMethod: Points, MonthlyCostPoints: cost(500),
			MemoryLimitMB: 256, CPULimitMillicores: 250, AdReachMultiplier: 1,
		},
		{
			Name: "Buddo Pro", Slug: "buddo-pro", PaymentMethod: Points, MonthlyCostPoints: cost(2000),
			MemoryLimitMB: 512, CPULimitMillicores: 500, MonthlyStipendPoints: 100, AdReachMultiplier: 1.25,
		},
		{
			Name: "Bitcoin Standard", Slug: "btc-standard", PaymentMethod: Bitcoin, MonthlyCostSats: cost(10_000),
			MemoryLimitMB: 512, CPULimitMillicores: 500, MonthlyStipendPoints: 500, AdReachMultiplier: 1.5,
		},
		{
			Name: "Bitcoin Pro", Slug: "btc-pro", PaymentMethod: Bitcoin, MonthlyCostSats: cost(40_000),
			MemoryLimitMB: 1024, CPULimitMillicores: 1000, CustomDomainAllowed: true, MonthlyStipendPoints: 2000, AdReachMultiplier: 2,
		},
	}
}
