// Package caller carries who calls from the gateway, which has found it out, to the
// service that answers, as gRPC metadata. It is for calls between services only: the
// gateway never passes on metadata that came from outside.
package caller

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// header is binary metadata: gRPC encodes it.
const header = "slipway-principal-bin"

// ErrNobody is returned by Incoming for a call that does not say who calls.
var ErrNobody = errors.New("the call does not say who calls")

// Outgoing lets calls made with the context say who calls.
func Outgoing(ctx context.Context, principal proto.Message) (context.Context, error) {
	text, err := proto.Marshal(principal)
	if err != nil {
		return nil, fmt.Errorf("say who calls: %w", err)
	}
	return metadata.AppendToOutgoingContext(ctx, header, string(text)), nil
}

// Incoming reads into principal who calls. Errors: ErrNobody.
func Incoming(ctx context.Context, principal proto.Message) error {
	sent := metadata.ValueFromIncomingContext(ctx, header)
	if len(sent) != 1 {
		return ErrNobody
	}
	if err := proto.Unmarshal([]byte(sent[0]), principal); err != nil {
		return fmt.Errorf("%w: %w", ErrNobody, err)
	}
	return nil
}
