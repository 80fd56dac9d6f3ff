//go:build plant_skip_occ

package sim

const planted = plantSkipOCC
