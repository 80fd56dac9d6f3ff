//go:build plant_overbook

package sim

const planted = plantOverbook
