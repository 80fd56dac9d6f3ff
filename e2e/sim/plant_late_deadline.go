//go:build plant_late_deadline

package sim

const planted = plantLateDeadline
