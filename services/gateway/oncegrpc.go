package gateway

import (
	"context"
	"fmt"
	"net/http"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/rpc"
	"github.com/slipway-paas/slipway/services/gateway/idempotency"
)

// replayedHeader says that an answer is that of an earlier request.
const replayedHeader = "Idempotent-Replayed"

// onceUnary is door.once for gRPC: the metadata idempotency-key means what the header
// does, for the methods that REST has a POST for. It comes after the guard.
func onceUnary(answers *idempotency.Keeper, all []route) grpc.ServerOption {
	posts := map[string]bool{}
	for _, rt := range all {
		posts[rt.rpc] = posts[rt.rpc] || rt.method == http.MethodPost
	}
	return grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		values := metadata.ValueFromIncomingContext(ctx, idempotency.Header)
		in, ok := req.(proto.Message)
		if len(values) == 0 || !ok || !posts[info.FullMethod] || answers == nil {
			return next(ctx, req)
		}
		key, err := idempotency.ParseKey(values)
		if err != nil {
			return nil, err
		}
		content, err := proto.MarshalOptions{Deterministic: true}.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("write a request: %w", err)
		}
		answer, replayed, err := answers.Do(ctx, idempotency.Request{
			Owner: ownerOf(ctx), Endpoint: "gRPC " + info.FullMethod, Key: key, Content: content,
		}, func(ctx context.Context, command string) idempotency.Answer {
			return callAnswer(next(rpc.WithCommandID(ctx, command), req))
		})
		if err != nil {
			return nil, err
		}
		if replayed {
			// A failed one means that the headers are out, which nothing before has sent.
			_ = grpc.SetHeader(ctx, metadata.Pairs(replayedHeader, "true"))
		}
		return answerOf(answer)
	})
}

// callAnswer is what came of a call as answers are kept: the HTTP status that it would
// have, and the message or the status.
func callAnswer(out any, err error) idempotency.Answer {
	var kept proto.Message
	code := http.StatusOK
	if err != nil {
		kept, code = status.Convert(err).Proto(), problem.From(err).Status
	} else {
		kept, _ = out.(proto.Message)
	}
	packed, err := anypb.New(kept)
	if err == nil {
		var body []byte
		if body, err = proto.Marshal(packed); err == nil {
			return idempotency.Answer{Status: code, Body: body}
		}
	}
	return callAnswer(nil, internal())
}

func answerOf(a idempotency.Answer) (any, error) {
	packed := &anypb.Any{}
	if err := proto.Unmarshal(a.Body, packed); err != nil {
		return nil, fmt.Errorf("read an answer that was kept: %w", err)
	}
	out, err := packed.UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("read an answer that was kept: %w", err)
	}
	if failed, ok := out.(*spb.Status); ok {
		return nil, status.FromProto(failed).Err()
	}
	return out, nil
}
