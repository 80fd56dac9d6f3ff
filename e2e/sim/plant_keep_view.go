//go:build plant_keep_view

package sim

const planted = plantKeepView
