//go:build plant_keep_key

package sim

const planted = plantKeepKey
