//go:build plant_ack_before_write

package sim

const planted = plantAckBeforeWrite
