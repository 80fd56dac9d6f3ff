package nodeagent

import (
	"context"
	"fmt"
	"time"
)

const (
	// pulseEvery is how often the runtime is asked whether it answers, pulseTime how
	// long it may take: a runtime that takes calls and never answers shows after both.
	pulseEvery = 15 * time.Second
	pulseTime  = 15 * time.Second
)

// feelPulse asks the runtime now and then whether it answers. The work itself does not
// tell: while nothing changes there is none, and when a call hangs it is given minutes.
func (s *Service) feelPulse(ctx context.Context) {
	ticker := time.NewTicker(pulseEvery)
	defer ticker.Stop()
	for {
		asked := time.Now()
		err := s.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		s.mu.Lock()
		was := s.hangs
		s.hangs = nil
		if err != nil {
			s.hangs = fmt.Errorf("the container runtime does not answer since %s: %w; see whether Podman's service runs",
				asked.UTC().Format(time.RFC3339), err)
			if was != nil {
				s.hangs = was
			}
		}
		s.mu.Unlock()
		switch {
		case err != nil && was == nil:
			s.deps.Log.WarnContext(ctx, "the container runtime does not answer", "error", err)
		case err == nil && was != nil:
			s.deps.Log.InfoContext(ctx, "the container runtime answers again")
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (s *Service) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pulseTime)
	defer cancel()
	return s.deps.Runtime.Ping(ctx)
}
