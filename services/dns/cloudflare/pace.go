package cloudflare

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/slipway-paas/slipway/services/dns/zone"
)

const (
	// window is what Cloudflare counts calls over; DefaultPerWindow stays under the 1200
	// that it answers, for others use the same account.
	window           = 5 * time.Minute
	DefaultPerWindow = 1000
	// burst may be made at once, when there were none before.
	burst = 40
	// defaultPause is for a 429 that does not say; maxPause bounds what one may ask for.
	defaultPause = 30 * time.Second
	maxPause     = 10 * time.Minute
)

// pace lets calls through at a rate, and none while the API asks to be left alone.
type pace struct {
	limiter *rate.Limiter
	watch   Watch

	mu    sync.Mutex
	until time.Time
}

func newPace(perWindow int, watch Watch) *pace {
	if perWindow == 0 {
		perWindow = DefaultPerWindow
	}
	return &pace{limiter: rate.NewLimiter(rate.Every(window/time.Duration(perWindow)), min(burst, perWindow)), watch: watch}
}

// pause lets nothing through for so long.
func (p *pace) pause(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if until := time.Now().Add(d); until.After(p.until) {
		p.until = until
	}
}

// wait returns when it is the caller's turn. Errors: zone.ErrLimited when that would be
// after ctx's deadline, or ctx ends.
func (p *pace) wait(ctx context.Context) error {
	began := time.Now()
	for {
		p.mu.Lock()
		pause := time.Until(p.until)
		p.mu.Unlock()
		if pause <= 0 {
			break
		}
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < pause {
			return fmt.Errorf("%w: it asks to be left alone for %s more", zone.ErrLimited, pause.Round(time.Second))
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
	if err := p.limiter.Wait(ctx); err != nil {
		return fmt.Errorf("%w: %w", zone.ErrLimited, err)
	}
	if waited := time.Since(began); waited > time.Millisecond && p.watch != nil {
		p.watch.Waited(waited)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", zone.ErrLimited, ctx.Err())
	case <-timer.C:
		return nil
	}
}
