package certs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"github.com/slipway-paas/slipway/gen/slipway/dns/v1"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// recordTakes is how long the dns service may take to make a record that can be looked up.
const recordTakes = 90 * time.Second

// errNoRecord is returned when a challenge's record could not be made.
var errNoRecord = errors.New("the DNS record of the challenge could not be made")

// records answers DNS-01 challenges (RFC 8555, 8.4) by asking the dns service: an edge has
// no key to any zone.
type records struct{ nats *nats.Conn }

// Present implements acmez.Solver.
func (r *records) Present(ctx context.Context, c acme.Challenge) error {
	return r.ask(ctx, c, dnsv1.ChallengeAction_CHALLENGE_ACTION_PRESENT)
}

// CleanUp implements acmez.Solver.
func (r *records) CleanUp(ctx context.Context, c acme.Challenge) error {
	return r.ask(ctx, c, dnsv1.ChallengeAction_CHALLENGE_ACTION_CLEANUP)
}

func (r *records) ask(ctx context.Context, c acme.Challenge, action dnsv1.ChallengeAction) error {
	request, err := proto.Marshal(&dnsv1.ChallengeRequest{Fqdn: c.DNS01TXTRecordName(), Value: c.DNS01KeyAuthorization(), Action: action})
	if err != nil {
		return fmt.Errorf("%w: %w", errNoRecord, err)
	}
	ctx, cancel := context.WithTimeout(ctx, recordTakes)
	defer cancel()
	answer, err := r.nats.RequestWithContext(ctx, subjects.DNSChallengeRequests, request)
	if errors.Is(err, nats.ErrNoResponders) {
		return fmt.Errorf("%w: no dns service runs", errNoRecord)
	}
	if err != nil {
		return fmt.Errorf("%w: ask the dns service: %w", errNoRecord, err)
	}
	response := &dnsv1.ChallengeResponse{}
	if err := proto.Unmarshal(answer.Data, response); err != nil {
		return fmt.Errorf("%w: read the dns service's answer: %w", errNoRecord, err)
	}
	if response.GetError() != "" {
		return fmt.Errorf("%w: %s", errNoRecord, response.GetError())
	}
	return nil
}
