package gateway

import (
	"context"
	"errors"

	"google.golang.org/grpc"

	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/gateway/authn"
)

// guardUnary lets calls in by the same table and the same check as REST.
func guardUnary(guard *authn.Guard, limits *limits) grpc.ServerOption {
	return grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		ctx, err := enter(ctx, guard, limits, info.FullMethod)
		if err != nil {
			return nil, err
		}
		return next(ctx, req)
	})
}

func guardStream(guard *authn.Guard, limits *limits) grpc.ServerOption {
	return grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		ctx, err := enter(stream.Context(), guard, limits, info.FullMethod)
		if err != nil {
			return err
		}
		if authn.Principal(ctx) == nil {
			return next(srv, entered{ServerStream: stream, ctx: ctx})
		}
		ctx, stop := guard.Watch(ctx, info.FullMethod, authn.FromMetadata(ctx))
		defer stop()
		err = next(srv, entered{ServerStream: stream, ctx: ctx})
		if refusal := (*problem.Error)(nil); errors.As(context.Cause(ctx), &refusal) {
			return refusal
		}
		return err
	})
}

func enter(ctx context.Context, guard *authn.Guard, limits *limits, method string) (context.Context, error) {
	principal, err := guard.Authorize(ctx, method, authn.FromMetadata(ctx))
	if err != nil {
		return nil, err
	}
	if err := limits.call(ctx, principal, method); err != nil {
		return nil, err
	}
	return authn.WithPrincipal(ctx, principal), nil
}

type entered struct {
	grpc.ServerStream
	ctx context.Context
}

func (e entered) Context() context.Context { return e.ctx }
