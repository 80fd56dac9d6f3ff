package gateway

import (
	"errors"
	"log/slog"
	"net/http"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	streamv1 "github.com/slipway-paas/slipway/gen/slipway/stream/v1"
	"github.com/slipway-paas/slipway/libs/cloudevents"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/gateway/authn"
	"github.com/slipway-paas/slipway/services/gateway/events"
)

// eventServer gives organizations their events over gRPC, as orgEvents does over REST.
type eventServer struct {
	streamv1.UnimplementedEventServiceServer
	streams *events.Streams
	log     *slog.Logger
}

// FollowEvents implements streamv1.EventServiceServer.
func (s *eventServer) FollowEvents(req *streamv1.FollowEventsRequest, stream streamv1.EventService_FollowEventsServer) error {
	ctx := stream.Context()
	principal := authn.Principal(ctx)
	of, err := cloudevents.Select(principal.GetOrgId(), req.GetTypes(), req.GetAggregates())
	if err != nil {
		return err
	}
	err = s.streams.Follow(ctx, principal.GetOperatorId(), of, req.GetAfterSequence(), orgSink{stream})
	switch {
	case errors.Is(err, events.ErrClosing):
		return problem.Unavailable("Slipway is restarting; follow again from your last sequence.", time.Second)
	case err != nil && ctx.Err() == nil:
		p := problem.From(err)
		if p.Status >= http.StatusInternalServerError {
			s.log.ErrorContext(ctx, "could not follow an organization's events", "error", err)
		}
		return p
	}
	return nil
}

// orgSink is a gRPC client of an organization's events; see grpcSink.
type orgSink struct {
	stream streamv1.EventService_FollowEventsServer
}

func (g orgSink) Begin() error    { return g.stream.SendHeader(nil) }
func (g orgSink) CaughtUp() error { return nil }
func (g orgSink) Beat() error     { return nil }

func (g orgSink) Send(e cloudevents.Event) error {
	data, err := e.Struct()
	if err != nil {
		return err
	}
	return g.stream.Send(&streamv1.FollowEventsResponse{
		Sequence: e.Sequence, Id: e.ID, Type: e.Type, Source: e.Source, Subject: e.Subject,
		Time: timestamppb.New(e.Time), Actor: e.Actor, Data: data,
	})
}
