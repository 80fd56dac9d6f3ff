//go:build plant_edge_ack_early

package sim

const planted = plantEdgeAckEarly
