//go:build plant_forget_claim

package sim

const planted = plantForgetClaim
