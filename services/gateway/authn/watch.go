package authn

import (
	"context"
	"net/http"
	"time"

	"github.com/slipway-paas/slipway/libs/problem"
)

// watchEvery is how often what a long answer was let in by is looked at again.
const watchEvery = time.Second

// Watch returns a context that ends, with the refusal as its cause, once what let the
// call in does so no more: long answers end with the access to them. The caller calls
// stop at the end.
func (g *Guard) Watch(ctx context.Context, fullMethod string, shown Presented) (watched context.Context, stop context.CancelFunc) {
	watched, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(watchEvery)
		defer ticker.Stop()
		for {
			select {
			case <-watched.Done():
				return
			case <-ticker.C:
			}
			_, err := g.Authorize(watched, fullMethod, shown)
			// What cannot be found out now is not refused.
			if err != nil && problem.From(err).Status < http.StatusInternalServerError && watched.Err() == nil {
				cancel(err)
				return
			}
		}
	}()
	return watched, func() {
		cancel(nil)
		<-done
	}
}
