//go:build plant_thin_takeover

package sim

const planted = plantThinTakeover
