package edge

import (
	"context"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/slipway-paas/slipway/services/proxy-config/edge/feed"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/table"
)

const (
	// seekFor is how long an edge with a copy of the table on disk looks for the
	// control plane before it serves from that.
	seekFor = time.Second
	// readFor is how long it waits for the table of a control plane that is there.
	readFor = 30 * time.Second
	// complainEvery is between two lines of an edge that has nothing to serve from.
	complainEvery = 10 * time.Second
)

const (
	// ballastBytes are counted as live by the garbage collector and never touched, so
	// that they use no memory. An edge's own data is a few megabytes: without ballast
	// each few hundred requests would pay for a collection.
	ballastBytes = 24 << 20
	// gcPercent makes collections half as frequent as Go's own value, and gcPercentMany a
	// fifth: each has to look at all routes, and of many that takes longer than serving.
	gcPercent, gcPercentMany = 200, 500
	manyRoutes               = 10_000
	// sizeEvery is how often it is looked how many there are.
	sizeEvery = 5 * time.Second
)

// tuneGC spends memory on fewer collections, unless GOGC says how many there shall be.
// They stay so for as long as the ballast is kept.
func tuneGC(getenv func(string) string) (ballast []byte) {
	if getenv("GOGC") != "" {
		return nil
	}
	debug.SetGCPercent(gcPercent)
	return make([]byte, ballastBytes)
}

// sizeGC follows the size of the table, until ctx ends.
func sizeGC(ctx context.Context, getenv func(string) string, routes *table.Table) {
	if getenv("GOGC") != "" {
		return
	}
	tick := time.NewTicker(sizeEvery)
	defer tick.Stop()
	for now := gcPercent; ; {
		want := gcPercent
		if routes.Len() >= manyRoutes {
			want = gcPercentMany
		}
		if want != now {
			debug.SetGCPercent(want)
			now = want
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// waitForTable returns true once the edge has its whole table: the live one, or,
// while the control plane is away, the copy from disk. Until then no listener is
// open, so that whoever balances over edges takes this one for down and goes to
// another: an edge that knows no host would answer 404. It returns false when ctx ends.
func waitForTable(ctx context.Context, f *feed.Feed, routes *table.Table, log *slog.Logger) bool {
	began := time.Now()
	complained := began
	tick := time.NewTicker(seekFor / 10)
	defer tick.Stop()
	for {
		select {
		case <-f.Synced():
			return true
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
		waited := time.Since(began)
		if routes.Loaded() && (waited > readFor || waited > seekFor && !f.Connected()) {
			log.Warn("serving the last route table from disk", "routes", routes.Len(), "connected", f.Connected())
			return true
		}
		if time.Since(complained) > complainEvery {
			complained = time.Now()
			log.Warn("not listening yet: there is no route table to serve from", "connected", f.Connected(), "waited", waited.Round(time.Second))
		}
	}
}
