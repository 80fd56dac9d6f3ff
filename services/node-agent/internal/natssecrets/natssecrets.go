// Package natssecrets asks the scheduler for the environment of an instance, over
// NATS. The values are never stored on the way.
package natssecrets

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/libs/observe"
	"github.com/slipway-paas/slipway/libs/subjects"
	nodeagent "github.com/slipway-paas/slipway/services/node-agent"
)

const answerTime = 5 * time.Second

// Client implements nodeagent.Secrets.
type Client struct{ nc *nats.Conn }

var _ nodeagent.Secrets = (*Client)(nil)

// New asks over that connection.
func New(nc *nats.Conn) *Client { return &Client{nc: nc} }

// Env returns the instance's environment. It fails with nodeagent.ErrSecretsRefused
// when the scheduler says that the instance is not that node's.
func (c *Client) Env(ctx context.Context, node, instance string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	request := nats.NewMsg(subjects.SecretsRequest(node, instance))
	if parent := observe.TraceParent(ctx); parent != "" {
		request.Header.Set(observe.TraceParentHeader, parent)
	}
	message, err := c.nc.RequestMsgWithContext(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("ask the scheduler: %w", err)
	}
	var answer nodev1.InstanceSecrets
	if err := proto.Unmarshal(message.Data, &answer); err != nil {
		return nil, fmt.Errorf("read the scheduler's answer: %w", err)
	}
	if answer.GetError() != "" {
		return nil, fmt.Errorf("%w: %s", nodeagent.ErrSecretsRefused, answer.GetError())
	}
	return answer.GetEnv(), nil
}
