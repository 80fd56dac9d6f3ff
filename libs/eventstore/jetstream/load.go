package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
)

const (
	// page is how many events one direct read asks for.
	page = 256
	// leaderAnswers bounds one question to the leader: a new leader knows nothing of
	// those that the old one took with it, so they are asked again.
	leaderAnswers = time.Second
	leaderPause   = 50 * time.Millisecond
	// readLeader is answered by the stream's leader alone, unlike a direct read.
	readLeader    = "$JS.API.STREAM.MSG.GET." + subjects.StreamEvents
	headerPending = "Nats-Num-Pending"
)

const (
	replicationUnknown int32 = iota
	replicationNone
	replicationSome
)

// Load returns an aggregate's events; see eventstore.Store. Any replica may answer
// a direct read, so when there are several the leader is asked for the aggregate's
// last sequence first, and for what the replica did not have yet.
func (s *Store) Load(ctx context.Context, a subjects.Aggregate, after uint64) ([]eventstore.Recorded, error) {
	if err := a.Validate(); err != nil {
		return nil, fmt.Errorf("load %s: %w", a, err)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	events, err := s.load(ctx, a.Filter(), after)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", a, err)
	}
	return events, nil
}

func (s *Store) load(ctx context.Context, filter string, after uint64) ([]eventstore.Recorded, error) {
	replicated, err := s.isReplicated(ctx)
	if err != nil {
		return nil, err
	}
	var target uint64
	if replicated {
		if target, err = s.LastSequence(ctx, filter); err != nil {
			return nil, err
		}
	}
	var events []eventstore.Recorded
	for more := true; more; {
		var got []eventstore.Recorded
		if got, more, err = s.readPage(ctx, filter, after); err != nil {
			return nil, err
		}
		if len(got) > 0 {
			after = got[len(got)-1].Sequence
			events = append(events, got...)
		}
	}
	for after < target {
		stored, err := s.askLeader(ctx, messageRequest{Sequence: after + 1, NextFor: filter})
		if err != nil {
			return nil, err
		}
		if stored == nil {
			break
		}
		// Follow says which events cannot be read.
		event, _ := decode(stored.Subject, stored.header(), stored.Data, stored.Sequence)
		after = event.Sequence
		events = append(events, event)
	}
	return events, nil
}

// readPage returns the next events behind after, and whether there are more.
func (s *Store) readPage(ctx context.Context, filter string, after uint64) (events []eventstore.Recorded, more bool, err error) {
	messages, err := jetstreamext.GetBatch(ctx, s.js, subjects.StreamEvents, page,
		jetstreamext.GetBatchSubject(filter), jetstreamext.GetBatchSeq(after+1))
	if err != nil {
		return nil, false, fmt.Errorf("%w: %w", eventstore.ErrUnavailable, err)
	}
	pending := -1
	for m, err := range messages {
		if errors.Is(err, jetstreamext.ErrNoMessages) {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, fmt.Errorf("%w: %w", eventstore.ErrUnavailable, err)
		}
		if pending, err = strconv.Atoi(m.Header.Get(headerPending)); err != nil {
			return nil, false, fmt.Errorf("event %d: how many follow: %w", m.Sequence, err)
		}
		event, _ := decode(m.Subject, m.Header, m.Data, m.Sequence)
		events = append(events, event)
	}
	// Running out of time ends the iteration without an error.
	if ctx.Err() != nil || pending < 0 {
		return nil, false, fmt.Errorf("%w: the read was cut off", eventstore.ErrUnavailable)
	}
	return events, pending > 0, nil
}

// LastSequence returns the last sequence that matches; see eventstore.Store.
func (s *Store) LastSequence(ctx context.Context, filter string) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	stored, err := s.askLeader(ctx, messageRequest{LastFor: filter})
	if err != nil {
		return 0, fmt.Errorf("last sequence of %s: %w", filter, err)
	}
	if stored == nil {
		return 0, nil
	}
	return stored.Sequence, nil
}

func (s *Store) isReplicated(ctx context.Context) (bool, error) {
	if known := s.replicated.Load(); known != replicationUnknown {
		return known == replicationSome, nil
	}
	stream, err := s.js.Stream(ctx, subjects.StreamEvents)
	if err != nil {
		return false, fmt.Errorf("%w: look at the stream %s: %w", eventstore.ErrUnavailable, subjects.StreamEvents, err)
	}
	found := replicationNone
	if stream.CachedInfo().Config.Replicas > 1 {
		found = replicationSome
	}
	s.replicated.Store(found)
	return found == replicationSome, nil
}

// messageRequest and messageResponse are the server's API for one stored message,
// which the client library only sends to replicas when direct reads are on.
type messageRequest struct {
	Sequence uint64 `json:"seq,omitempty"`
	LastFor  string `json:"last_by_subj,omitempty"`
	NextFor  string `json:"next_by_subj,omitempty"`
}

type messageResponse struct {
	Error   *jetstream.APIError `json:"error,omitempty"`
	Message *storedMessage      `json:"message,omitempty"`
}

type storedMessage struct {
	Subject  string `json:"subject"`
	Sequence uint64 `json:"seq"`
	Headers  []byte `json:"hdrs,omitempty"`
	Data     []byte `json:"data,omitempty"`
}

func (m *storedMessage) header() nats.Header {
	// Headers that cannot be read are those of no event of ours; decode says so.
	header, err := nats.DecodeHeadersMsg(m.Headers)
	if err != nil {
		return nats.Header{}
	}
	return header
}

// askLeader returns nil when no message matches.
func (s *Store) askLeader(ctx context.Context, request messageRequest) (*storedMessage, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("encode a read of the log: %w", err)
	}
	answer, err := s.requestLeader(ctx, body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", eventstore.ErrUnavailable, err)
	}
	var response messageResponse
	if err := json.Unmarshal(answer.Data, &response); err != nil {
		return nil, fmt.Errorf("decode a read of the log: %w", err)
	}
	if e := response.Error; e != nil {
		if e.Code == http.StatusNotFound && e.ErrorCode == jetstream.JSErrCodeMessageNotFound {
			return nil, nil
		}
		return nil, fmt.Errorf("%w: %w", eventstore.ErrUnavailable, e)
	}
	return response.Message, nil
}

// requestLeader asks until there is an answer or ctx ends.
func (s *Store) requestLeader(ctx context.Context, body []byte) (*nats.Msg, error) {
	for {
		attempt, cancel := context.WithTimeout(ctx, leaderAnswers)
		answer, err := s.js.Conn().RequestWithContext(attempt, readLeader, body)
		cancel()
		if err == nil {
			return answer, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(leaderPause):
		}
	}
}
