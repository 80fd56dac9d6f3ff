package drops

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxTold bounds how many failures are kept in words.
const maxTold = 20

// Report is what the visitors saw.
type Report struct {
	// Served and Failed count requests by kind.
	Served, Failed map[string]int
	// Cut counts the WebSockets and streams of the untouched app that were cut.
	Cut int
	// Messages are those that came over the untouched app's WebSockets and streams.
	Messages int
	// Reopened counts those of the app itself that ended and were opened again, Refused
	// those that could not be opened.
	Reopened, Refused int
	// Told are failures in words, at most 20.
	Told []string
	// Restarts, Scales, Rollbacks and Others are what was done.
	Restarts, Scales, Rollbacks, Others int
	Took                                time.Duration
}

// Requests is how many were served and how many failed.
func (r *Report) Requests() (served, failed int) {
	for _, n := range r.Served {
		served += n
	}
	for _, n := range r.Failed {
		failed += n
	}
	return served, failed
}

// String has a line for each kind of request.
func (r *Report) String() string {
	var b strings.Builder
	served, failed := r.Requests()
	fmt.Fprintf(&b, "%d restarts, %d scales, %d rollbacks, %d other apps came and went in %s\n", r.Restarts, r.Scales, r.Rollbacks, r.Others, r.Took.Round(time.Second))
	fmt.Fprintf(&b, "%d requests served, %d failed; %d messages over the untouched app's WebSockets and streams, %d of those cut; of the app itself %d ended and were opened again, %d were refused\n",
		served, failed, r.Messages, r.Cut, r.Reopened, r.Refused)
	for _, name := range slices.Sorted(maps.Keys(r.Served)) {
		fmt.Fprintf(&b, "  %-34s %6d served, %d failed\n", name, r.Served[name], r.Failed[name])
	}
	for _, told := range r.Told {
		fmt.Fprintln(&b, "  "+told)
	}
	return b.String()
}

// tally makes the report; it is safe for concurrent use.
type tally struct {
	began time.Time
	// doing is what is being done to the app.
	doing string
	mu    sync.Mutex
	r     Report
}

func newTally() *tally {
	return &tally{began: time.Now(), r: Report{Served: map[string]int{}, Failed: map[string]int{}}}
}

func (t *tally) does(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.doing = what
}

func (t *tally) visited(what string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.r.Served[what]++
		return
	}
	t.r.Failed[what]++
	t.tell(what, err)
}

// tell is called with the lock held.
func (t *tally) tell(what string, err error) {
	if len(t.r.Told) < maxTold {
		t.r.Told = append(t.r.Told, fmt.Sprintf("%6.1fs during %s: %s: %v", time.Since(t.began).Seconds(), t.doing, what, err))
	}
}

func (t *tally) heard() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.r.Messages++
}

func (t *tally) cut(what string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.r.Cut++
	t.tell(what, err)
}

func (t *tally) reopened(what string, refused bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if refused {
		t.r.Refused++
		t.tell(what, err)
		return
	}
	t.r.Reopened++
}
