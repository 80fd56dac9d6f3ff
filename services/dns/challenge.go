package dns

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	dnsv1 "github.com/slipway-paas/slipway/gen/slipway/dns/v1"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/dns/zone"
)

const (
	challengePrefix = "_acme-challenge."
	challengeTTL    = 60
	// challengeTime bounds one request: within it the API has the record, or the answer
	// says why not.
	challengeTime = 55 * time.Second
	// challengesAtOnce and those below bound what edges may ask for.
	challengesAtOnce = 16
	challengeRate    = 5 // a second
	challengeBurst   = 60
	challengeQueue   = 1024
	// challengeValues bounds those of one name: a base domain and its wildcard have two.
	challengeValues = 8
	maxChallenge    = 2048 // bytes of one request
)

// answerChallenges answers edges until ctx ends. Several processes share the requests.
func (s *Service) answerChallenges(ctx context.Context) error {
	sub, err := s.deps.NATS.QueueSubscribeSync(subjects.DNSChallengeRequests, source)
	if err != nil {
		return fmt.Errorf("listen for challenges: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // it ends with the connection too
	if err := sub.SetPendingLimits(challengeQueue, challengeQueue*maxChallenge); err != nil {
		return fmt.Errorf("bound the challenges that wait: %w", err)
	}
	var answering sync.WaitGroup
	defer answering.Wait()
	room := make(chan struct{}, challengesAtOnce)
	for {
		msg, err := sub.NextMsgWithContext(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, nats.ErrSlowConsumer):
			s.deps.Log.WarnContext(ctx, "challenges were dropped: more came than wait")
			continue
		case err != nil:
			return fmt.Errorf("listen for challenges: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case room <- struct{}{}:
		}
		answering.Go(func() {
			defer func() { <-room }()
			s.answerChallenge(ctx, msg)
		})
	}
}

func (s *Service) answerChallenge(ctx context.Context, msg *nats.Msg) {
	ctx, cancel := context.WithTimeout(ctx, challengeTime)
	defer cancel()
	in := &dnsv1.ChallengeRequest{}
	var err error
	if len(msg.Data) > maxChallenge || proto.Unmarshal(msg.Data, in) != nil {
		err = refusal("The request is not understood.")
	} else {
		err = s.challenge(ctx, in)
	}
	res := &dnsv1.ChallengeResponse{}
	result := "done"
	var refused refusal
	switch {
	case errors.As(err, &refused):
		res.Error, result = refused.Error(), "refused"
	case err != nil:
		res.Error, result = "The DNS provider did not do it: "+err.Error(), "failed"
	}
	s.figures.challenges.WithLabelValues(result).Inc()
	if err != nil {
		s.deps.Log.WarnContext(ctx, "a challenge was not answered", "fqdn", shortened(in.GetFqdn()), "action", in.GetAction().String(), "error", err)
	}
	data, err := proto.Marshal(res)
	if err == nil && msg.Reply != "" {
		err = msg.Respond(data)
	}
	if err != nil {
		s.deps.Log.WarnContext(ctx, "the answer to a challenge could not be sent", "error", err)
	}
}

// refusal is a sentence for who asked for what is not done.
type refusal string

func (r refusal) Error() string { return string(r) }

func refuse(format string, args ...any) error { return refusal(fmt.Sprintf(format, args...)) }

func shortened(text string) string { return text[:min(len(text), 300)] }

func (s *Service) challenge(ctx context.Context, in *dnsv1.ChallengeRequest) error {
	fqdn := strings.ToLower(strings.TrimSuffix(in.GetFqdn(), "."))
	host, ok := strings.CutPrefix(fqdn, challengePrefix)
	switch {
	case !ok || len(fqdn) > 253 || !hostname.MatchString(host) || strings.HasPrefix(host, "*"):
		return refuse("%q is no name of an ACME challenge, such as _acme-challenge.example.com.", shortened(in.GetFqdn()))
	case !digest(in.GetValue()):
		return refuse("The value is no digest of an ACME challenge (RFC 8555, 8.4).")
	case in.GetAction() != dnsv1.ChallengeAction_CHALLENGE_ACTION_PRESENT && in.GetAction() != dnsv1.ChallengeAction_CHALLENGE_ACTION_CLEANUP:
		return refuse("The request asks for nothing: its action is neither present nor cleanup.")
	case s.Ready() != nil:
		return refuse("Domains are still being read; try again in a second.")
	}
	s.mu.Lock()
	p, verified := s.provider, s.state.Verified(host)
	s.mu.Unlock()
	switch {
	case p == nil:
		return refuse("This platform holds no DNS zone, for there is no Cloudflare token: give one with --cloudflare-token-file, or get certificates in another way than DNS-01.")
	case !zone.Within(host, s.policy.BaseDomain) && !verified:
		return refuse("%s is neither the base domain or below it, nor a verified custom domain.", host)
	case !s.requests.Allow():
		return refuse("Too many challenges are asked for; try again in a minute.")
	}
	z, err := s.zoneOf(ctx, host)
	if err != nil {
		return err
	}
	c := challenge{zone: z, record: zone.Record{Name: fqdn, Type: zone.TXT, Content: in.GetValue(), TTL: challengeTTL, Challenge: true}}
	do := c.present
	if in.GetAction() == dnsv1.ChallengeAction_CHALLENGE_ACTION_CLEANUP {
		do = c.cleanup
	}
	return patiently(ctx, do)
}

// digest reports whether it is the SHA-256 of a key authorization in base64url.
func digest(value string) bool {
	sum, err := base64.RawURLEncoding.DecodeString(value)
	return err == nil && len(sum) == 32
}

func (s *Service) zoneOf(ctx context.Context, host string) (zone.Zone, error) {
	var zones []zone.Zone
	err := patiently(ctx, func(ctx context.Context) (err error) {
		zones, err = s.held(ctx, false)
		return err
	})
	if err != nil {
		return nil, err
	}
	apexes := make([]string, len(zones))
	for i, z := range zones {
		apexes[i] = z.Name()
	}
	apex := zone.Holding(host, apexes)
	for _, z := range zones {
		if z.Name() == apex {
			return z, nil
		}
	}
	return nil, refuse("%s is in none of the %d DNS zones that this platform holds.", host, len(zones))
}

// errUnseen is for what was written and is not read yet.
var errUnseen = fmt.Errorf("%w: what was written is not seen yet", zone.ErrUnavailable)

// patiently does it again while the provider is away or behind, until ctx ends.
func patiently(ctx context.Context, do func(context.Context) error) error {
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval, waits.MaxInterval = 100*time.Millisecond, 5*time.Second
	for {
		err := do(ctx)
		if err == nil || !errors.Is(err, zone.ErrUnavailable) && !errors.Is(err, zone.ErrLimited) {
			return err
		}
		if pause(ctx, waits.NextBackOff()) != nil {
			return err
		}
	}
}

// challenge is one value of one name.
type challenge struct {
	zone   zone.Zone
	record zone.Record
}

// present makes the record, and returns when it is read.
func (c challenge) present(ctx context.Context) error {
	named, err := c.zone.Named(ctx, c.record.Name)
	if err != nil {
		return err
	}
	texts := 0
	for _, r := range named {
		if r.Type != zone.TXT {
			continue
		}
		if r.Content == c.record.Content {
			return nil
		}
		texts++
	}
	if texts >= challengeValues {
		return refuse("%s has %d values already; clean them up, or wait an hour.", c.record.Name, texts)
	}
	if _, err := c.zone.Create(ctx, c.record); err != nil && !errors.Is(err, zone.ErrTaken) {
		return err
	}
	return errUnseen
}

// cleanup takes this value away; other values of the name stay.
func (c challenge) cleanup(ctx context.Context) error {
	named, err := c.zone.Named(ctx, c.record.Name)
	if err != nil {
		return err
	}
	for _, r := range named {
		if r.Ours && r.Challenge && r.Type == zone.TXT && r.Content == c.record.Content {
			if err := c.zone.Delete(ctx, r); err != nil {
				return err
			}
		}
	}
	return nil
}
