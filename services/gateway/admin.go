package gateway

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"google.golang.org/grpc"

	adminv1 "github.com/slipway-paas/slipway/gen/slipway/admin/v1"
	"github.com/slipway-paas/slipway/libs/problem"
)

// What answers when it is done is bounded by these.
const (
	rebuildTimeout  = 2 * time.Hour
	rotationTimeout = time.Hour
)

// adminServer passes the calls of those who run the platform on to who answers them.
// The guard has seen to it that they may.
type adminServer struct {
	adminv1.UnimplementedAdminServiceServer
	scheduler adminv1.AdminServiceClient
	log       *slog.Logger
}

// passed makes one call, bounded as others are.
func passed[In, Out any](ctx context.Context, s *adminServer, doing string, call func(context.Context, In) (Out, error), in In) (Out, error) {
	ctx, cancel := outgoing(ctx)
	defer cancel()
	return answered(ctx, s, doing, call, in)
}

// plain is a client's method without options.
func plain[In, Out any](method func(context.Context, In, ...grpc.CallOption) (Out, error)) func(context.Context, In) (Out, error) {
	return func(ctx context.Context, in In) (Out, error) { return method(ctx, in) }
}

func answered[In, Out any](ctx context.Context, s *adminServer, doing string, call func(context.Context, In) (Out, error), in In) (Out, error) {
	out, err := call(ctx, in)
	if err != nil {
		var none Out
		p := problem.From(err)
		if p.Status >= http.StatusInternalServerError {
			s.log.ErrorContext(ctx, "could not "+doing, "error", err)
		}
		return none, p
	}
	return out, nil
}

func (s *adminServer) ListNodes(ctx context.Context, in *adminv1.ListNodesRequest) (*adminv1.ListNodesResponse, error) {
	return passed(ctx, s, "list nodes", plain(s.scheduler.ListNodes), in)
}

func (s *adminServer) DrainNode(ctx context.Context, in *adminv1.DrainNodeRequest) (*adminv1.DrainNodeResponse, error) {
	return passed(ctx, s, "drain a node", plain(s.scheduler.DrainNode), in)
}

func (s *adminServer) UncordonNode(ctx context.Context, in *adminv1.UncordonNodeRequest) (*adminv1.UncordonNodeResponse, error) {
	return passed(ctx, s, "uncordon a node", plain(s.scheduler.UncordonNode), in)
}

func (s *adminServer) GetProjection(ctx context.Context, in *adminv1.GetProjectionRequest) (*adminv1.GetProjectionResponse, error) {
	return passed(ctx, s, "look at a projection", plain(s.scheduler.GetProjection), in)
}

func (s *adminServer) RebuildProjection(ctx context.Context, in *adminv1.RebuildProjectionRequest) (*adminv1.RebuildProjectionResponse, error) {
	ctx, cancel := outgoingWithin(ctx, rebuildTimeout)
	defer cancel()
	return answered(ctx, s, "rebuild a projection", plain(s.scheduler.RebuildProjection), in)
}

func (s *adminServer) ListDeadLetters(ctx context.Context, in *adminv1.ListDeadLettersRequest) (*adminv1.ListDeadLettersResponse, error) {
	return passed(ctx, s, "list dead letters", plain(s.scheduler.ListDeadLetters), in)
}

func (s *adminServer) GetDeadLetter(ctx context.Context, in *adminv1.GetDeadLetterRequest) (*adminv1.GetDeadLetterResponse, error) {
	return passed(ctx, s, "show a dead letter", plain(s.scheduler.GetDeadLetter), in)
}

func (s *adminServer) ReplayDeadLetter(ctx context.Context, in *adminv1.ReplayDeadLetterRequest) (*adminv1.ReplayDeadLetterResponse, error) {
	return passed(ctx, s, "replay a dead letter", plain(s.scheduler.ReplayDeadLetter), in)
}

func (s *adminServer) DropDeadLetter(ctx context.Context, in *adminv1.DropDeadLetterRequest) (*adminv1.DropDeadLetterResponse, error) {
	return passed(ctx, s, "drop a dead letter", plain(s.scheduler.DropDeadLetter), in)
}

func (s *adminServer) RotateKeys(ctx context.Context, in *adminv1.RotateKeysRequest) (*adminv1.RotateKeysResponse, error) {
	ctx, cancel := outgoingWithin(ctx, rotationTimeout)
	defer cancel()
	return answered(ctx, s, "rotate the master key", plain(s.scheduler.RotateKeys), in)
}
