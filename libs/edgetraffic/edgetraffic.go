// Package edgetraffic is how edges treat requests and instances, as it is told to
// slipway-edge, and to slipwayd which passes it on.
package edgetraffic

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

const (
	maxWait      = 10 * time.Minute
	maxPause     = time.Hour
	maxAnswer    = time.Hour
	maxDrain     = time.Hour
	minEjectFor  = 100 * time.Millisecond
	mostEjectFor = time.Hour
)

// Rules are what edges are told; embed them, and their keys are the embedding struct's.
type Rules struct {
	MaxRequest     int64         `koanf:"max-request-bytes" default:"1073741824" usage:"largest body of a request, in bytes, for apps that set none; 0 for no limit"`
	RequestTimeout time.Duration `koanf:"request-timeout" default:"5m" usage:"how long an app may take to begin its answer; apps may ask for less"`
	Compression    bool          `koanf:"compression" default:"true" usage:"compress answers (zstd, gzip) that the app did not; apps may ask for none"`
	HeaderTimeout  time.Duration `koanf:"header-timeout" default:"10s" usage:"how long a request's headers may take to come"`
	BodyTimeout    time.Duration `koanf:"body-timeout" default:"1m" usage:"how long a request's body may pause"`
	Drain          time.Duration `koanf:"drain" default:"5s" usage:"how long WebSockets and event streams of an instance that left its route go on, where the route does not say; the rollout's drain or less"`
	EjectAfter     int           `koanf:"eject-after" default:"3" usage:"failed requests in a row after which an instance is passed over while another one serves; 0 for never"`
	EjectBurst     int           `koanf:"eject-burst" default:"10" usage:"server errors within 10 s after which an instance that mostly fails is passed over while another one does not; 0 for never"`
	EjectFor       time.Duration `koanf:"eject-for" default:"10s" usage:"how long an instance is passed over the first time, at most six times that when it goes on"`
}

// Validate says everything that is wrong; the flags' names begin with prefix.
func (r Rules) Validate(prefix string) error {
	var errs []error
	wrong := func(flag, format string, args ...any) {
		errs = append(errs, fmt.Errorf("--"+prefix+flag+": "+format, args...))
	}
	if r.MaxRequest < 0 {
		wrong("max-request-bytes", "%d must be 0 or more", r.MaxRequest)
	}
	if r.RequestTimeout < time.Second || r.RequestTimeout > maxAnswer {
		wrong("request-timeout", "%s must be 1s to 1h", r.RequestTimeout)
	}
	if r.HeaderTimeout <= 0 || r.HeaderTimeout > maxWait {
		wrong("header-timeout", "%s must be above 0 and at most 10m", r.HeaderTimeout)
	}
	if r.BodyTimeout <= 0 || r.BodyTimeout > maxPause {
		wrong("body-timeout", "%s must be above 0 and at most 1h", r.BodyTimeout)
	}
	if r.Drain < 0 || r.Drain > maxDrain {
		wrong("drain", "%s must be between 0 and 1h", r.Drain)
	}
	if r.EjectAfter < 0 {
		wrong("eject-after", "%d must not be negative", r.EjectAfter)
	}
	if r.EjectBurst < 0 {
		wrong("eject-burst", "%d must not be negative", r.EjectBurst)
	}
	if r.EjectFor < minEjectFor || r.EjectFor > mostEjectFor {
		wrong("eject-for", "%s must be between 100ms and 1h", r.EjectFor)
	}
	return errors.Join(errs...)
}

// Args are the flags that say the same to slipway-edge.
func (r Rules) Args() []string {
	return []string{
		"--max-request-bytes", strconv.FormatInt(r.MaxRequest, 10), "--request-timeout", r.RequestTimeout.String(),
		"--compression=" + strconv.FormatBool(r.Compression), "--header-timeout", r.HeaderTimeout.String(), "--body-timeout", r.BodyTimeout.String(),
		"--drain", r.Drain.String(), "--eject-after", strconv.Itoa(r.EjectAfter), "--eject-burst", strconv.Itoa(r.EjectBurst),
		"--eject-for", r.EjectFor.String(),
	}
}
