package cloudevents

import (
	// A process can show, and let people select, only the events whose types it knows;
	// these are all that the log holds.
	_ "github.com/slipway-paas/slipway/gen/slipway/claim/v1"
	_ "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	_ "github.com/slipway-paas/slipway/gen/slipway/dns/v1"
	_ "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	_ "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	_ "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	_ "github.com/slipway-paas/slipway/gen/slipway/webhooks/v1"
)
