//go:build plant_forget_event

package sim

const planted = plantForgetEvent
