//go:build plant_keep_container

package sim

const planted = plantKeepContainer
