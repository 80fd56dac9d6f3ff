package deployment

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	routingv1 "github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/libs/problem"
)

// Bounds of what may be asked of the edges. A 0 asks for their default.
const (
	MinRequestBytes = 1 << 10
	MaxRequestBytes = 1<<31 - 1
	// MaxRequestTimeout is as long as edges wait for an app by default: an app can ask
	// for less.
	MaxRequestTimeout = 5 * time.Minute
	MaxDrain          = time.Hour
)

// ConfigureIngress changes how edges treat the deployment's requests. What is nil
// stays as it is.
type ConfigureIngress struct {
	Maintenance     *bool
	MaxRequestBytes *int32
	// RequestTimeoutSeconds and DrainSeconds are whole seconds.
	RequestTimeoutSeconds *int32
	Sticky                *bool
	DrainSeconds          *int32
	Compression           *bool
	By                    string
}

func (ConfigureIngress) command() {}

func decideIngress(s State, c ConfigureIngress) (proto.Message, error) {
	if s.Status == Destroyed || s.Intent == IntentDestroy {
		return nil, problem.InvalidState("Changing the ingress failed: the deployment is destroyed.")
	}
	if faults := c.faults(); len(faults) > 0 {
		return nil, problem.Validation(faults)
	}
	before := s.Ingress
	if before == nil {
		before = &routingv1.RoutePolicy{}
	}
	after := proto.CloneOf(before)
	set(&after.Maintenance, c.Maintenance)
	set(&after.Sticky, c.Sticky)
	if c.MaxRequestBytes != nil {
		after.MaxRequestBytes = uint64(*c.MaxRequestBytes)
	}
	if c.Compression != nil {
		after.NoCompression = !*c.Compression
	}
	setSeconds(&after.RequestTimeout, c.RequestTimeoutSeconds)
	setSeconds(&after.Drain, c.DrainSeconds)
	if proto.Equal(before, after) {
		return nil, nil
	}
	return &deploymentv1.IngressConfigured{Policy: after, InitiatedBy: c.By}, nil
}

func (c ConfigureIngress) faults() []problem.Field {
	var faults []problem.Field
	add := func(field, format string, args ...any) {
		faults = append(faults, problem.Field{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	if n := c.MaxRequestBytes; n != nil && *n != 0 && *n < MinRequestBytes {
		add("max_request_bytes", "must be between %d and %d bytes, or 0 for the platform's default, not %d", MinRequestBytes, MaxRequestBytes, *n)
	}
	longest := func(field string, n *int32, limit time.Duration) {
		if n != nil && (*n < 0 || int64(*n) > int64(limit/time.Second)) {
			add(field, "must be between 1 and %d seconds, or 0 for the platform's default, not %d", int64(limit/time.Second), *n)
		}
	}
	longest("request_timeout_seconds", c.RequestTimeoutSeconds, MaxRequestTimeout)
	longest("drain_seconds", c.DrainSeconds, MaxDrain)
	return faults
}

func set(field *bool, to *bool) {
	if to != nil {
		*field = *to
	}
}

func setSeconds(field **durationpb.Duration, to *int32) {
	switch {
	case to == nil:
	case *to == 0:
		*field = nil
	default:
		*field = durationpb.New(time.Duration(*to) * time.Second)
	}
}
