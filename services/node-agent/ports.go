package nodeagent

import (
	"context"
	"errors"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/view"
	"github.com/slipway-paas/slipway/services/node-agent/runtime"
)

// Desired is what nodes must run; *view.View is one.
type Desired interface {
	// Watch hands over what there is, calls ready, then hands over changes.
	Watch(ctx context.Context, filter string, handle func(context.Context, view.Change[*nodev1.DesiredInstance]) error, ready func()) error
	// Get returns false when the key is not there.
	Get(ctx context.Context, key string) (view.Entry[*nodev1.DesiredInstance], bool, error)
}

// Nodes is where the node says that it lives; *view.View is one.
type Nodes interface {
	Put(ctx context.Context, key string, node *nodev1.Node) (revision uint64, err error)
}

// Facts is where the agent records what it saw; every eventstore.Store is one.
type Facts interface {
	// Record writes a fact; the same ID again writes nothing.
	Record(ctx context.Context, e eventstore.Event) (sequence uint64, err error)
}

// ErrSecretsRefused is wrapped by Secrets when the answer was that the values are
// not for this node: asking again does not help.
var ErrSecretsRefused = errors.New("the environment was refused")

// Secrets gives the environment of one of the node's instances.
type Secrets interface {
	Env(ctx context.Context, node, instance string) (map[string]string, error)
}

// Deps are what the agent works with. Metrics and Tracer may be nil.
type Deps struct {
	Runtime runtime.Runtime
	Desired Desired
	Nodes   Nodes
	Facts   Facts
	Secrets Secrets
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Tracer  trace.Tracer

	// Turn, unless nil, is waited for before each look at an instance: whoever drives
	// the agent step by step decides there which one is next.
	Turn func(ctx context.Context, instance string)
}

func (d Deps) validate() error {
	if d.Runtime == nil || d.Desired == nil || d.Nodes == nil || d.Facts == nil || d.Secrets == nil || d.Log == nil {
		return errors.New("the node-agent needs Runtime, Desired, Nodes, Facts, Secrets and Log")
	}
	return nil
}
