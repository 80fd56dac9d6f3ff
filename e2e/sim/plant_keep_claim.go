//go:build plant_keep_claim

package sim

const planted = plantKeepClaim
