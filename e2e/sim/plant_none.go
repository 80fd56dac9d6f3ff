//go:build !plant_drop_fact && !plant_skip_occ && !plant_ack_before_write && !plant_forget_claim && !plant_keep_claim && !plant_retire_early && !plant_edge_ack_early && !plant_keep_container && !plant_keep_view && !plant_keep_key && !plant_overbook && !plant_forget_event && !plant_late_deadline && !plant_thin_takeover

package sim

const planted = plantNone
