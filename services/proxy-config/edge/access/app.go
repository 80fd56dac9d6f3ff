package access

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/DataDog/sketches-go/ddsketch"
	"github.com/DataDog/sketches-go/ddsketch/pb/sketchpb"
	"github.com/DataDog/sketches-go/ddsketch/store"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	edgev1 "github.com/slipway-paas/slipway/gen/slipway/edge/v1"
)

const (
	// accuracy is how far a quantile may be from the true one, relative to it.
	accuracy = 0.01
	// mostBins bounds a sketch; 1024 of them span microseconds to hours at that accuracy.
	mostBins = 1024
)

// buckets are the upper bounds of the histogram for Prometheus, in seconds.
var buckets = [...]float64{0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 10}

// App is what is known of one deployment's requests.
type App struct {
	org, deployment string
	// taken is how many entries were logged since the last flush, dropped how many were
	// not since the last batch that was sent.
	taken   atomic.Int64
	dropped atomic.Uint64

	mu    sync.Mutex
	since time.Time
	// now is since the last summary, ever since the app was first served.
	now, ever sums
	durations *ddsketch.DDSketch // nil for none
	inBucket  [len(buckets) + 1]uint64
	seconds   float64
	timed     uint64
}

// sums are requests by the class of their status, 1xx first, and bytes.
type sums struct {
	class   [5]uint64
	in, out uint64
}

// Served is one request that was answered. upgraded ones became another protocol: they
// last as long as people stay, which says nothing of the app's speed.
type Served struct {
	Status            int
	Duration          time.Duration
	BytesIn, BytesOut uint64
	Upgraded          bool
}

// Served adds one request to the app's figures.
func (a *App) Served(s Served) {
	class := min(max(s.Status/100, 1), 5) - 1
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, to := range [...]*sums{&a.now, &a.ever} {
		to.class[class]++
		to.in += s.BytesIn
		to.out += s.BytesOut
	}
	if s.Upgraded {
		return
	}
	seconds := s.Duration.Seconds()
	bucket := 0
	for bucket < len(buckets) && seconds > buckets[bucket] {
		bucket++
	}
	a.inBucket[bucket]++
	a.seconds += seconds
	a.timed++
	if a.durations == nil {
		a.durations = newSketch()
	}
	// It refuses what is not finite or too large to index; a duration is neither.
	_ = a.durations.Add(seconds * 1e3)
}

func newSketch() *ddsketch.DDSketch {
	sketch, err := ddsketch.LogCollapsingLowestDenseDDSketch(accuracy, mostBins)
	if err != nil {
		// Only for an accuracy outside 0 to 1.
		panic(fmt.Sprintf("a sketch of accuracy %v: %v", accuracy, err))
	}
	return sketch
}

// take sums up what was served since the last time, and begins anew; nil for nothing.
func (a *App) take(edge string, now time.Time) (*edgev1.RequestSummary, error) {
	a.mu.Lock()
	since, of, durations := a.since, a.now, a.durations
	a.since, a.now, a.durations = now, sums{}, nil
	a.mu.Unlock()
	if of == (sums{}) {
		return nil, nil
	}
	summary := &edgev1.RequestSummary{
		EdgeId: edge, From: timestamppb.New(since), Until: timestamppb.New(now),
		Informational: of.class[0], Successful: of.class[1], Redirects: of.class[2], ClientErrors: of.class[3], ServerErrors: of.class[4],
		BytesIn: of.in, BytesOut: of.out,
	}
	if durations != nil {
		data, err := proto.Marshal(durations.ToProto())
		if err != nil {
			return nil, fmt.Errorf("encoding durations: %w", err)
		}
		summary.Durations = data
	}
	return summary, nil
}

// putBack takes back a summary that could not be sent.
func (a *App) putBack(s *edgev1.RequestSummary) error {
	var sketch *ddsketch.DDSketch
	if len(s.GetDurations()) > 0 {
		encoded := &sketchpb.DDSketch{}
		if err := proto.Unmarshal(s.GetDurations(), encoded); err != nil {
			return fmt.Errorf("decoding durations: %w", err)
		}
		var err error
		if sketch, err = ddsketch.FromProtoWithStoreProvider(encoded, collapsing); err != nil {
			return fmt.Errorf("decoding durations: %w", err)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.since = s.GetFrom().AsTime()
	for class, n := range [...]uint64{s.GetInformational(), s.GetSuccessful(), s.GetRedirects(), s.GetClientErrors(), s.GetServerErrors()} {
		a.now.class[class] += n
	}
	a.now.in += s.GetBytesIn()
	a.now.out += s.GetBytesOut()
	switch {
	case sketch == nil:
	case a.durations == nil:
		a.durations = sketch
	default:
		if err := a.durations.MergeWith(sketch); err != nil {
			return fmt.Errorf("merging durations: %w", err)
		}
	}
	return nil
}

func collapsing() store.Store { return store.NewCollapsingLowestDenseStore(mostBins) }
