package rpc

import (
	"context"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

const commandHeader = "slipway-command-id"

// WithCommandID has calls made with ctx say under which ID their command is given: a
// UUID that stays the same when the call is made again.
func WithCommandID(ctx context.Context, id string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, commandHeader, id)
}

// named gives a call a command ID when its caller gave none, before it is made for the
// first time: what is repeated because the connection broke is the same command.
func named(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	if said, ok := metadata.FromOutgoingContext(ctx); !ok || len(said.Get(commandHeader)) == 0 {
		ctx = WithCommandID(ctx, uuid.Must(uuid.NewV7()).String())
	}
	return invoke(ctx, method, req, reply, conn, options...)
}

// CommandID is the ID under which the call's command is given; empty when the caller
// said none. The call may have been made before: look in the log for what was written
// with that ID first. Only services of the platform are believed.
func CommandID(ctx context.Context) string {
	said := metadata.ValueFromIncomingContext(ctx, commandHeader)
	if len(said) != 1 || uuid.Validate(said[0]) != nil {
		return ""
	}
	return said[0]
}

// NewID is an ID for something of that kind that the call makes: the same when the call
// is made again under one command ID, and else a new one.
func NewID(ctx context.Context, kind string) string {
	if command := CommandID(ctx); command != "" {
		return uuid.NewSHA1(uuid.MustParse(command), []byte(kind)).String()
	}
	return uuid.Must(uuid.NewV7()).String()
}
