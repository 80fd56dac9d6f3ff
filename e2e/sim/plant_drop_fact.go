//go:build plant_drop_fact

package sim

const planted = plantDropFact
