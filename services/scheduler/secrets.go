package scheduler

import (
	"context"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"

	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/libs/observe"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
)

// secretsQueue makes several schedulers share the requests.
const secretsQueue = "scheduler"

// answerSecrets gives node-agents the environment of instances that are to run on
// them, until ctx ends. The answer depends on the node that the subject names; NATS
// lets each node's key ask in its own name only.
func (s *Service) answerSecrets(ctx context.Context) error {
	sub, err := s.deps.NATS.QueueSubscribe(subjects.AllSecretsRequests, secretsQueue, func(m *nats.Msg) {
		if !toItself(m) {
			s.deps.Log.WarnContext(ctx, "a question for an environment was to be answered elsewhere than to the node; it was not", "subject", m.Subject, "reply", m.Reply)
			return
		}
		answer := s.tracedSecrets(ctx, m)
		body, err := proto.Marshal(answer)
		if err == nil {
			err = m.Respond(body)
		}
		if err != nil {
			s.deps.Log.WarnContext(ctx, "a node could not be told an instance's environment", "subject", m.Subject, "error", err)
		}
	})
	if err != nil {
		return fmt.Errorf("subscribing to %s: %w", subjects.AllSecretsRequests, err)
	}
	<-ctx.Done()
	return sub.Unsubscribe()
}

// toItself reports whether the answer goes to the node that asks in its own name. NATS
// does not hold the subject of an answer against what the one who asks may send: a node
// could have us write for it, into another's heartbeat or into the log.
func toItself(m *nats.Msg) bool {
	node, _, err := subjects.ParseSecretsRequest(m.Subject)
	return err == nil && strings.HasPrefix(m.Reply, subjects.NodeInbox(node)+".")
}

// tracedSecrets answers in the trace that the node asks in.
func (s *Service) tracedSecrets(ctx context.Context, m *nats.Msg) *nodev1.InstanceSecrets {
	parent := m.Header.Get(observe.TraceParentHeader)
	ctx, span := observe.Continue(ctx, s.deps.Tracer, parent, "give the environment", trace.SpanKindServer)
	defer span.End()
	answer := s.Secrets(ctx, m.Subject)
	if answer.GetError() != "" && span.IsRecording() {
		span.SetStatus(codes.Error, answer.GetError())
	}
	return answer
}

// Secrets answers a node's request for the environment of one of its instances.
func (s *Service) Secrets(ctx context.Context, subject string) *nodev1.InstanceSecrets {
	node, instance, err := subjects.ParseSecretsRequest(subject)
	if err != nil {
		return &nodev1.InstanceSecrets{Error: err.Error()}
	}
	state, ok := s.fleet.OfInstance(instance)
	if !ok {
		return &nodev1.InstanceSecrets{Error: "there is no such instance"}
	}
	sealed := deployment.Env(state, node, instance)
	if sealed == nil {
		return &nodev1.InstanceSecrets{Error: "the instance is not to run on this node"}
	}
	if len(sealed.Names) == 0 {
		return &nodev1.InstanceSecrets{}
	}
	env, err := s.deps.Seal.Open(ctx, subjects.Of(state.Org, subjects.Deployment, state.ID), sealed.Ciphertext)
	if err != nil {
		s.deps.Log.ErrorContext(ctx, "an environment could not be unsealed", "deployment", state.ID, "error", err)
		return &nodev1.InstanceSecrets{Error: "its environment could not be unsealed"}
	}
	return &nodev1.InstanceSecrets{Env: env}
}
