package webhooks

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/webhooks/delivery"
	"github.com/slipway-paas/slipway/services/webhooks/queue"
	"github.com/slipway-paas/slipway/services/webhooks/sender"
	"github.com/slipway-paas/slipway/services/webhooks/webhook"
)

const (
	// maxAttemptsAtOnce and perWebhook bound attempts under way: a slow endpoint holds up
	// its own events only.
	maxAttemptsAtOnce = 32
	perWebhook        = 4
	// lease is longer than an attempt may take: whoever begins one has it for so long.
	lease   = time.Minute
	sending = 30 * time.Second
	maxIdle = time.Minute
)

// under are the attempts under way.
type under struct {
	mu   sync.Mutex
	all  int
	each map[string]int
	ids  map[string]bool
}

func (u *under) begin(webhookID, id string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.all >= maxAttemptsAtOnce || u.each[webhookID] >= perWebhook || u.ids[id] {
		return false
	}
	u.all++
	u.each[webhookID]++
	u.ids[id] = true
	return true
}

func (u *under) end(webhookID, id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.all--
	if u.each[webhookID]--; u.each[webhookID] == 0 {
		delete(u.each, webhookID)
	}
	delete(u.ids, id)
}

// deliver makes attempts as they come due until ctx ends.
func (s *Service) deliver(ctx context.Context) error {
	way := &under{each: map[string]int{}, ids: map[string]bool{}}
	var attempts sync.WaitGroup
	defer attempts.Wait()
	done := make(chan struct{}, 1)
	for {
		now := s.deps.Now()
		due, next := s.queue.Due(now)
		for _, e := range due {
			if !way.begin(e.GetWebhookId(), e.GetShown().GetId()) {
				continue
			}
			attempts.Go(func() {
				if err := s.attempt(ctx, e); err != nil && ctx.Err() == nil && !errors.Is(err, queue.ErrLost) {
					s.deps.Log.WarnContext(ctx, "a delivery could not be tried", "webhook", e.GetWebhookId(), "delivery", e.GetShown().GetId(), "error", err)
					// What is broken here is not asked again at once.
					select {
					case <-ctx.Done():
					case <-time.After(retryPause):
					}
				}
				way.end(e.GetWebhookId(), e.GetShown().GetId())
				select {
				case done <- struct{}{}:
				default:
				}
			})
		}
		idle := maxIdle
		if !next.IsZero() {
			idle = min(idle, max(next.Sub(now), time.Millisecond))
		}
		wake := time.NewTimer(idle)
		select {
		case <-ctx.Done():
			wake.Stop()
			return nil
		case <-s.queue.Changed():
		case <-done:
		case <-wake.C:
			s.queue.Sweep(s.deps.Now())
		}
		wake.Stop()
	}
}

// attempt makes one, having noted that it is made.
func (s *Service) attempt(ctx context.Context, e queue.Entry) error {
	w, ok := s.known.find(e.GetOrgId(), e.GetWebhookId())
	body, err := s.queue.Body(ctx, e)
	if err != nil {
		return err
	}
	e.Body = body
	shown, now := e.GetShown(), s.deps.Now()
	if !ok || !w.Enabled() {
		return s.ended(ctx, e, delivery.Failed, "The webhook was disabled or deleted.")
	}
	shown.Attempts++
	shown.LastAttemptAt = timestamppb.New(now)
	if e.FirstAttemptAt == nil {
		e.FirstAttemptAt = shown.LastAttemptAt
	}
	e.DueAt = timestamppb.New(now.Add(lease))
	shown.NextAttemptAt = e.DueAt
	if e, err = s.queue.Put(ctx, e); err != nil {
		return err
	}
	target, err := s.target(ctx, w)
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, sending)
	defer cancel()
	if shown.GetAttempts() > 1 {
		s.figures.retries.Inc()
	}
	answer, err := s.sender.Send(bounded, sender.Message{ID: shown.GetId(), URL: target.url, Secrets: target.secrets, Body: body}, now)
	if err != nil || ctx.Err() != nil {
		return err
	}
	shown = e.GetShown()
	shown.LastStatus, shown.LastError = uint32(answer.Status), answer.Why
	if delivery.Accepted(answer.Status) {
		return s.ended(ctx, e, delivery.Delivered, "")
	}
	wait, again := delivery.Wait(int(shown.GetAttempts()), s.deps.Jitter(), answer.RetryAfter)
	if !again || delivery.Gone(answer.Status) {
		err = s.ended(ctx, e, delivery.Failed, answer.Why)
	} else {
		e.DueAt = timestamppb.New(s.deps.Now().Add(wait))
		shown.NextAttemptAt = e.DueAt
		_, err = s.queue.Put(ctx, e)
	}
	if err != nil {
		return err
	}
	return s.disableDead(ctx, w, answer.Status)
}

func (s *Service) ended(ctx context.Context, e queue.Entry, status, why string) error {
	shown := e.GetShown()
	shown.Status, shown.LastError, shown.NextAttemptAt, e.DueAt = status, why, nil, nil
	_, err := s.queue.Put(ctx, e)
	if err == nil {
		s.figures.deliveries.WithLabelValues(status).Inc()
	}
	return err
}

// disableDead ends deliveries to an endpoint that has taken nothing for days, or says
// that it is gone.
func (s *Service) disableDead(ctx context.Context, w webhook.State, status int) error {
	command := webhook.Disable{Reason: webhook.Gone, Since: w.Since}
	if !delivery.Gone(status) {
		since := delivery.FailingSince(pasts(s.queue.Of(w.Org, w.ID)), w.EnabledAt)
		if !delivery.Dead(since, s.deps.Now()) {
			return nil
		}
		command = webhook.Disable{Reason: webhook.Failing, FailingSince: since, Since: w.Since}
	}
	result, err := s.webhooks.Handle(ctx, decider.Command[webhook.Command]{Aggregate: subjects.Of(w.Org, subjects.Webhook, w.ID), Command: command})
	if err != nil && !errors.Is(err, webhook.ErrUnknown) {
		return fmt.Errorf("disable a webhook: %w", err)
	}
	if result.Event != nil {
		s.deps.Log.InfoContext(ctx, "a webhook was disabled", "webhook", w.ID, "reason", command.Reason)
	}
	return nil
}

func pasts(entries []queue.Entry) []delivery.Past {
	var all []delivery.Past
	for _, e := range entries {
		p := delivery.Past{Status: e.GetShown().GetStatus(), Attempts: e.GetShown().GetAttempts()}
		if e.GetFirstAttemptAt() != nil {
			p.FirstAttempt = e.GetFirstAttemptAt().AsTime()
		}
		if e.GetShown().GetLastAttemptAt() != nil {
			p.LastTry = e.GetShown().GetLastAttemptAt().AsTime()
		}
		all = append(all, p)
	}
	return all
}

// What is sealed in a webhook's target.
const (
	targetURL      = "url"
	targetSecret   = "secret"
	targetPrevious = "previous"
)

// target is where a webhook leads, and what signs, the newest secret first.
type target struct {
	url     string
	secrets []string
}

func (s *Service) target(ctx context.Context, w webhook.State) (target, error) {
	opened, err := s.deps.Seal.Open(ctx, subjects.Of(w.Org, subjects.Webhook, w.ID), w.Target)
	if err != nil {
		return target{}, fmt.Errorf("open where a webhook leads: %w", err)
	}
	to := target{url: opened[targetURL], secrets: []string{opened[targetSecret]}}
	if previous := opened[targetPrevious]; previous != "" && s.deps.Now().Before(w.PreviousUntil) {
		to.secrets = append(to.secrets, previous)
	}
	return to, nil
}
