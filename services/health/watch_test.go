package health

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/protobuf/proto"

	edgev1 "github.com/slipway-paas/slipway/gen/slipway/edge/v1"
	healthv1 "github.com/slipway-paas/slipway/gen/slipway/health/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// stage is a service whose instances, log and clock are the test's.
type stage struct {
	*Service
	mu       sync.Mutex
	answers  map[string]bool
	probes   map[string]int
	log      []eventstore.Event
	logDown  bool
	reported int
	busy     int
	maxBusy  int
	took     time.Duration
}

func newStage(concurrency int) *stage {
	st := &stage{answers: map[string]bool{}, probes: map[string]int{}}
	config, _ := Config{Concurrency: concurrency}.withDefaults()
	figures, _ := newFigures(nil) // registering is its only error
	st.Service = &Service{
		config: config, recorder: st, jitter: rand.Float64, log: slog.New(slog.DiscardHandler),
		slots: make(chan struct{}, config.Concurrency), watching: map[string]*watched{},
		figures: figures, tracer: noop.NewTracerProvider().Tracer(""),
		probe: func(ctx context.Context, t *healthv1.Target, _ time.Duration) (bool, string) {
			st.mu.Lock()
			st.probes[t.InstanceId]++
			st.busy++
			st.maxBusy = max(st.maxBusy, st.busy)
			ok := st.answers[t.InstanceId]
			st.mu.Unlock()
			select {
			case <-time.After(st.took):
			case <-ctx.Done():
			}
			st.mu.Lock()
			st.busy--
			st.mu.Unlock()
			return ok, "said no"
		},
		publish: func(string, []byte) error {
			st.mu.Lock()
			defer st.mu.Unlock()
			st.reported++
			return nil
		},
	}
	return st
}

func (st *stage) Record(_ context.Context, e eventstore.Event) (uint64, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.logDown {
		return 0, errors.New("the log is away")
	}
	st.log = append(st.log, e)
	return uint64(100 + len(st.log)), nil
}

func (st *stage) answer(instance string, ok bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.answers[instance] = ok
}

func (st *stage) said() []string {
	st.mu.Lock()
	defer st.mu.Unlock()
	var types []string
	for _, e := range st.log {
		types = append(types, e.Type())
	}
	return types
}

func instance(id string) *healthv1.Target {
	t := target()
	t.InstanceId = id
	return t
}

func TestTheLogHearsOfAnAppsLifeAndNothingElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		st := newStage(4)
		st.set(ctx, "acme.d1.i1", instance("i1"))
		time.Sleep(400 * time.Millisecond)
		equal(t, st.said(), nil)

		st.answer("i1", true)
		time.Sleep(300 * time.Millisecond)
		equal(t, st.said(), []string{"InstanceHealthy"})

		st.answer("i1", false)
		time.Sleep(15 * time.Second)
		equal(t, st.said(), []string{"InstanceHealthy"})
		time.Sleep(30 * time.Second)
		equal(t, st.said(), []string{"InstanceHealthy", "InstanceUnhealthy"})

		st.answer("i1", true)
		time.Sleep(12 * time.Second)
		equal(t, st.said(), []string{"InstanceHealthy", "InstanceUnhealthy", "InstanceHealthy"})

		ids := map[string]bool{}
		for _, e := range st.log {
			ids[e.ID] = true
			if e.Aggregate.Filter() != "evt.acme.deployment.d1.>" {
				t.Errorf("recorded on %s", e.Aggregate.Filter())
			}
		}
		if len(ids) != 3 {
			t.Errorf("three changes have ids %v", ids)
		}
		cancel()
		st.running.Wait()
	})
}

func TestALogThatIsAwayHearsItLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		st := newStage(4)
		st.logDown = true
		st.answer("i1", true)
		st.set(ctx, "acme.d1.i1", instance("i1"))
		time.Sleep(2 * time.Second)
		st.mu.Lock()
		st.logDown = false
		st.mu.Unlock()
		time.Sleep(300 * time.Millisecond)
		equal(t, st.said(), []string{"InstanceHealthy"})
		cancel()
		st.running.Wait()
	})
}

func TestAnInstanceThatIsGoneIsNotAskedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStage(4)
		st.answer("i1", true)
		st.set(t.Context(), "acme.d1.i1", instance("i1"))
		synctest.Wait()
		st.unset("acme.d1.i1")
		st.running.Wait()
		asked := st.probes["i1"]
		time.Sleep(time.Minute)
		if st.probes["i1"] != asked || len(st.watching) != 0 {
			t.Errorf("asked %d more times, still watching %d", st.probes["i1"]-asked, len(st.watching))
		}
	})
}

func TestAContainerThatWasStartedAgainIsAskedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		st := newStage(4)
		st.answer("i1", true)
		st.set(ctx, "acme.d1.i1", instance("i1"))
		time.Sleep(time.Second)
		for range 5 { // the view says the same again, and catches up
			same := instance("i1")
			same.Healthy, same.Sequence = true, 101
			st.set(ctx, "acme.d1.i1", same)
		}
		time.Sleep(time.Second)
		if st.probes["i1"] != 1 {
			t.Errorf("asked %d times, want once: nothing changed", st.probes["i1"])
		}
		again := instance("i1")
		again.Attempt, again.Sequence = 2, 110
		st.set(ctx, "acme.d1.i1", again)
		time.Sleep(time.Millisecond)
		equal(t, st.said(), []string{"InstanceHealthy", "InstanceHealthy"})
		cancel()
		st.running.Wait()
	})
}

func TestManyTargetsShareAFewProbes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		st := newStage(8)
		st.took = 20 * time.Millisecond
		for i := range 1000 {
			id := "i" + string(rune('a'+i%26)) + string(rune('a'+i/26))
			st.answer(id, true)
			st.set(ctx, "acme.d1."+id, instance(id))
		}
		time.Sleep(8 * time.Second)
		healthy := len(st.said())
		st.mu.Lock()
		if st.maxBusy != 8 || healthy != 1000 {
			t.Errorf("%d probes at once, want 8; %d said healthy, want 1000", st.maxBusy, healthy)
		}
		st.mu.Unlock()
		cancel()
		st.running.Wait()
	})
}

func TestEachResultSaysWhoseItIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		st := newStage(1)
		var subjects []string
		var last healthv1.ProbeResult
		st.publish = func(subject string, data []byte) error {
			subjects = append(subjects, subject)
			return proto.Unmarshal(data, &last)
		}
		st.set(ctx, "acme.d1.i1", instance("i1"))
		time.Sleep(900 * time.Millisecond)
		cancel()
		st.running.Wait()
		if !slices.Equal(subjects, []string{"probe.acme.d1.i1"}) {
			t.Errorf("published on %q, want once: a starting app is noise", subjects)
		}
		if last.Ok || last.Reason != "said no" || last.InstanceId != "i1" {
			t.Errorf("published %v", &last)
		}
	})
}

func reportOf(t *testing.T, target *healthv1.Target) []byte {
	t.Helper()
	data, err := proto.Marshal(&edgev1.UpstreamReport{
		EdgeId: "e1", OrgId: target.GetOrgId(), DeploymentId: target.GetDeploymentId(), InstanceId: target.GetInstanceId(),
		Reason: "3 requests in a row failed.", Failures: 3,
	})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestAnEdgesDoubtIsLookedIntoAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		st := newStage(4)
		st.answer("i1", true)
		one := instance("i1")
		st.set(ctx, subjects.InstanceKey(one.GetOrgId(), one.GetDeploymentId(), one.GetInstanceId()), one)
		time.Sleep(400 * time.Millisecond)
		equal(t, st.said(), []string{"InstanceHealthy"})

		before := st.probed("i1")
		for range 50 {
			st.hint(ctx, reportOf(t, one))
			synctest.Wait()
		}
		if n := st.probed("i1") - before; n != 1 {
			t.Errorf("50 reports at once lead to %d probes", n)
		}
		equal(t, st.said(), []string{"InstanceHealthy"})

		time.Sleep(1100 * time.Millisecond)
		st.answer("i1", false)
		st.hint(ctx, reportOf(t, one))
		time.Sleep(50 * time.Millisecond)
		equal(t, st.said(), []string{"InstanceHealthy", "InstanceUnhealthy"})

		st.hint(ctx, []byte("no report"))
		st.hint(ctx, reportOf(t, instance("of another")))
		time.Sleep(50 * time.Millisecond)
		equal(t, st.said(), []string{"InstanceHealthy", "InstanceUnhealthy"})
		cancel()
		st.running.Wait()
	})
}

func (st *stage) probed(instance string) int {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.probes[instance]
}
