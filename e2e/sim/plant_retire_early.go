//go:build plant_retire_early

package sim

const planted = plantRetireEarly
