package scheduler

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/slipway-paas/slipway/gen/slipway/admin/v1"
	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/projection"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/services/scheduler/readmodel"
)

// adminServer answers those who run the platform. Who may ask is the gateway's to check.
type adminServer struct {
	adminv1.UnimplementedAdminServiceServer
	service *Service
}

func (a adminServer) ListNodes(ctx context.Context, in *adminv1.ListNodesRequest) (*adminv1.ListNodesResponse, error) {
	out, err := a.service.ListNodes(ctx, in)
	return out, a.answer(ctx, err)
}

func (a adminServer) DrainNode(ctx context.Context, in *adminv1.DrainNodeRequest) (*adminv1.DrainNodeResponse, error) {
	out, err := a.service.DrainNode(ctx, in)
	return out, a.answer(ctx, err)
}

func (a adminServer) UncordonNode(ctx context.Context, in *adminv1.UncordonNodeRequest) (*adminv1.UncordonNodeResponse, error) {
	out, err := a.service.UncordonNode(ctx, in)
	return out, a.answer(ctx, err)
}

func (a adminServer) GetProjection(ctx context.Context, in *adminv1.GetProjectionRequest) (*adminv1.GetProjectionResponse, error) {
	runner, err := a.projection(in.GetName())
	if err != nil {
		return nil, err
	}
	letters, err := runner.DeadLetters(ctx)
	if err != nil {
		return nil, a.answer(ctx, err)
	}
	p := &adminv1.Projection{Name: runner.Name(), Version: readmodel.Version, Checkpoint: count(runner.Checkpoint()), DeadLetters: count(uint64(len(letters)))}
	if trouble := runner.Ready(); trouble != nil {
		p.Trouble = trouble.Error()
	}
	if progress, under := runner.Rebuilding(); under {
		p.Rebuild = &adminv1.Rebuild{Position: count(progress.Position), Target: count(progress.Target)}
	}
	return &adminv1.GetProjectionResponse{Projection: p}, nil
}

func (a adminServer) RebuildProjection(ctx context.Context, in *adminv1.RebuildProjectionRequest) (*adminv1.RebuildProjectionResponse, error) {
	runner, err := a.projection(in.GetName())
	if err != nil {
		return nil, err
	}
	began := time.Now()
	done, err := runner.Rebuild(ctx, in.GetAcceptDifferences())
	if err != nil {
		return nil, a.answer(ctx, err)
	}
	return &adminv1.RebuildProjectionResponse{
		Name: runner.Name(), Events: count(done.Events), Rows: count(done.Rows), Identical: done.Identical(),
		Differences: done.Differences, Seconds: time.Since(began).Seconds(), Swapped: done.Swapped,
	}, nil
}

func (a adminServer) ListDeadLetters(ctx context.Context, _ *adminv1.ListDeadLettersRequest) (*adminv1.ListDeadLettersResponse, error) {
	letters, err := a.service.projection.DeadLetters(ctx)
	if err != nil {
		return nil, a.answer(ctx, err)
	}
	out := &adminv1.ListDeadLettersResponse{}
	for _, d := range letters {
		out.DeadLetters = append(out.DeadLetters, a.letter(d))
	}
	return out, nil
}

func (a adminServer) GetDeadLetter(ctx context.Context, in *adminv1.GetDeadLetterRequest) (*adminv1.GetDeadLetterResponse, error) {
	sequence, err := a.sequence(in.GetId())
	if err != nil {
		return nil, err
	}
	d, err := a.service.projection.DeadLetter(ctx, sequence)
	if err != nil {
		return nil, a.answer(ctx, err)
	}
	out := a.letter(d)
	if out.Data, err = shown(d); err != nil {
		return nil, a.answer(ctx, err)
	}
	return &adminv1.GetDeadLetterResponse{DeadLetter: out}, nil
}

func (a adminServer) ReplayDeadLetter(ctx context.Context, in *adminv1.ReplayDeadLetterRequest) (*adminv1.ReplayDeadLetterResponse, error) {
	sequence, err := a.sequence(in.GetId())
	if err != nil {
		return nil, err
	}
	d, err := a.service.projection.DeadLetter(ctx, sequence)
	if err == nil {
		err = a.service.projection.Replay(ctx, sequence)
	}
	if err != nil {
		return nil, a.answer(ctx, err)
	}
	return &adminv1.ReplayDeadLetterResponse{DeadLetter: a.letter(d)}, nil
}

func (a adminServer) DropDeadLetter(ctx context.Context, in *adminv1.DropDeadLetterRequest) (*adminv1.DropDeadLetterResponse, error) {
	sequence, err := a.sequence(in.GetId())
	if err != nil {
		return nil, err
	}
	if err := a.service.projection.Drop(ctx, sequence); err != nil {
		return nil, a.answer(ctx, err)
	}
	return &adminv1.DropDeadLetterResponse{Message: "Dead letter dropped; its event stays in the log"}, nil
}

func (a adminServer) RotateKeys(ctx context.Context, _ *adminv1.RotateKeysRequest) (*adminv1.RotateKeysResponse, error) {
	done, err := a.service.deps.Seal.Rotate(ctx)
	if err != nil {
		return nil, a.answer(ctx, err)
	}
	a.service.deps.Log.InfoContext(ctx, "the master key was rotated", "key", done.Key, "resumed", done.Resumed, "data_keys", done.DataKeys,
		"rewrapped", done.Rewrapped, "unreadable", done.Unreadable, "dropped", done.Dropped)
	return &adminv1.RotateKeysResponse{
		Key: done.Key, Resumed: done.Resumed, DataKeys: count(uint64(done.DataKeys)), Rewrapped: count(uint64(done.Rewrapped)),
		Unreadable: count(uint64(done.Unreadable)), Dropped: done.Dropped, Old: done.Old,
	}, nil
}

// projection finds one by its name.
func (a adminServer) projection(name string) (*projection.Runner, error) {
	if name != a.service.projection.Name() {
		return nil, problem.NotFound("There is no projection of this name; there is " + a.service.projection.Name() + ".")
	}
	return a.service.projection, nil
}

// sequence takes a dead letter's id apart, which is <projection>-<sequence>.
func (a adminServer) sequence(id string) (uint64, error) {
	digits, ours := strings.CutPrefix(id, a.service.projection.Name()+"-")
	sequence, err := strconv.ParseUint(digits, 10, 63)
	if !ours || err != nil || strconv.FormatUint(sequence, 10) != digits {
		return 0, errNoLetter()
	}
	return sequence, nil
}

func errNoLetter() error {
	return problem.NotFound("There is no dead letter with this id; it may be replayed or dropped already.")
}

func (a adminServer) letter(d projection.DeadLetter) *adminv1.DeadLetter {
	name := protoreflect.FullName(d.Message).Name()
	return &adminv1.DeadLetter{
		Id: fmt.Sprintf("%s-%d", a.service.projection.Name(), d.Sequence), Projection: a.service.projection.Name(), Sequence: count(d.Sequence),
		EventType: string(name), Subject: d.Subject, Error: strings.ToValidUTF8(d.Error, "\uFFFD"), FailedAt: timestamppb.New(d.FailedAt),
	}
}

// shown is what a dead letter says, but for sealed values.
func shown(d projection.DeadLetter) (*structpb.Struct, error) {
	payload, err := d.Payload()
	if err != nil {
		return nil, err
	}
	conceal(payload.ProtoReflect())
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(payload)
	if err != nil {
		return nil, fmt.Errorf("show %s: %w", d.Message, err)
	}
	out := &structpb.Struct{}
	if err := protojson.Unmarshal(text, out); err != nil {
		return nil, fmt.Errorf("show %s: %w", d.Message, err)
	}
	return out, nil
}

func conceal(m protoreflect.Message) {
	if sealed, ok := m.Interface().(*deploymentv1.SealedEnv); ok {
		sealed.Ciphertext = nil
		return
	}
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if field.Message() != nil && !field.IsList() && !field.IsMap() {
			conceal(v.Message())
		}
		return true
	})
}

// answer keeps the insides of unexpected errors in the log; nil stays nil.
func (a adminServer) answer(ctx context.Context, err error) error {
	var again *projection.ReplayError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, projection.ErrNoDeadLetter):
		return errNoLetter()
	case errors.Is(err, projection.ErrRebuilding):
		return problem.Conflict("A rebuild of this projection is under way; wait until it is done.")
	case errors.Is(err, seal.ErrHeld):
		return problem.Conflict("A rotation of the master key or a backup is under way; wait until it is done.")
	case errors.Is(err, seal.ErrGiven):
		return problem.InvalidState("The master key is given to the platform by SLIPWAY_MASTER_KEYS: put a new key before it there, restart every process with both, and rotate again.")
	case errors.As(err, &again):
		return problem.InvalidState("The dead letter stays: " + strings.ToValidUTF8(again.Error(), "\uFFFD"))
	case errors.Is(err, eventstore.ErrUnavailable):
		return problem.Unavailable("The event log is not answering; try again in a moment.", time.Second)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	if trouble := a.service.projection.Ready(); trouble != nil && problem.From(err).Code == problem.CodeInternal {
		return problem.Unavailable("The read model is not ready: "+trouble.Error(), time.Second)
	}
	return server{Service: a.service}.answer(ctx, err)
}

// count is a number as the API has them: it knows no 64-bit ones.
func count(n uint64) uint32 { return uint32(min(n, math.MaxUint32)) }
