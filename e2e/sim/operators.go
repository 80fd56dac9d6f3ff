package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	adminv1 "github.com/slipway-paas/slipway/gen/slipway/admin/v1"
	billingv1 "github.com/slipway-paas/slipway/gen/slipway/billing/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/node-agent/runtime"
)

const org = "acme"

// answer is what an operator was told.
type answer struct {
	item     *item
	id       string
	sequence uint64
	err      error
	at       time.Duration
}

// schedule puts the plan's items on the agenda.
func (w *world) schedule(items []item) {
	for n := range items {
		i := &items[n]
		w.after(i.at, i.String(), func() { w.perform(i) })
	}
}

func (w *world) perform(i *item) {
	switch i.what {
	case "create", "restart", "scale", "rollback", "stop", "destroy":
		w.command(i)
	case "crash":
		if p := w.procs[i.who]; p != nil && !p.dead {
			c := &crash{calls: i.calls, answerLost: i.answerLost, down: i.lasts}
			w.armed[i.who] = c
			// One that makes no more calls crashes all the same.
			w.after(2*time.Second, "", func() {
				if w.armed[i.who] == c {
					w.crash(i.who, c)
				}
			})
		}
	case "kill", "remove by hand":
		w.strike(i)
	case "drain", "uncordon":
		w.cordon(i)
	default:
		w.trouble(i)
	}
}

// strike ends the first container of a deployment behind its agent's back.
func (w *world) strike(i *item) {
	for _, m := range w.machines {
		all := m.Containers()
		for _, id := range sortedKeys(all) {
			if all[id].Labels[runtime.LabelDeployment] != w.idOf[i.of] || all[id].State != runtime.StateRunning {
				continue
			}
			if i.what == "kill" {
				m.Crash(id, 137)
			} else {
				m.RemoveBehindBack(id)
			}
			return
		}
	}
}

// cordon has an admin drain a node, or take it into use again.
func (w *world) cordon(i *item) {
	p, admin := w.procs["scheduler"], w.admin
	if p.dead {
		return
	}
	w.commands.Go(func() {
		ctx := context.WithValue(p.ctx, commandKey{}, i.what+" "+i.who)
		var err error
		if i.what == "drain" {
			_, err = admin.DrainNode(ctx, &adminv1.DrainNodeRequest{NodeId: i.who})
		} else {
			_, err = admin.UncordonNode(ctx, &adminv1.UncordonNodeRequest{NodeId: i.who})
		}
		_ = p.do(ctx, kindCommand, "answered", func(verdict) error {
			w.note("%s %s: answered %v", i.what, i.who, err)
			return nil
		})
	})
}

// trouble is what happens to a whole node.
func (w *world) trouble(i *item) {
	n := slices.IndexFunc(w.machines, func(m *machine) bool { return m.id == i.who })
	if n < 0 {
		return
	}
	m := w.machines[n]
	switch i.what {
	case "partition":
		m.away, m.missing = true, time.Now().Add(i.lasts+15*time.Second)
		w.after(i.lasts, m.id+" is reached again", func() { m.away = m.lost })
	case "lose":
		m.away, m.lost = true, true
	case "reboot":
		w.reboot(m, i.lasts)
	case "break events":
		m.BreakEvents()
	case "registry down":
		m.registryDown = true
		w.after(i.lasts, m.id+" reaches the registry again", func() { m.registryDown = false })
	}
}

// command has an operator ask for something, in its own time.
func (w *world) command(i *item) {
	p, server := w.procs["scheduler"], w.server
	if p.dead {
		return
	}
	id := w.idOf[i.of]
	if i.what != "create" && id == "" {
		return
	}
	owner := w.ownerOf[i.of]
	if i.what == "create" {
		owner = i.who
	}
	principal := &identityv1.Principal{OrgId: org, OperatorId: owner, AppId: i.id}
	w.commands.Go(func() {
		ctx := context.WithValue(p.ctx, commandKey{}, i.id)
		a := answer{item: i}
		var d *schedulerv1.Deployment
		if a.err = p.do(ctx, kindCommand, i.what, func(verdict) error { return nil }); a.err == nil {
			d, a.err = ask(ctx, server, principal, i, id)
		}
		if a.err == nil {
			a.id, a.sequence = d.Id, d.Sequence
		}
		// The answer arrives in a step of its own; a scheduler that has crashed gives none.
		if err := p.do(ctx, kindCommand, i.what+" answered", func(verdict) error {
			a.at = w.at()
			w.answered = append(w.answered, a)
			w.note("%s: answered %d, %v", i.id, a.sequence, a.err)
			return nil
		}); err != nil {
			return
		}
	})
}

func ask(ctx context.Context, s schedulerv1.SchedulerServiceServer, p *identityv1.Principal, i *item, id string) (*schedulerv1.Deployment, error) {
	switch i.what {
	case "create":
		env := map[string]string{"GREETING": "hello"}
		if i.stubborn {
			env["MODE"] = "stubborn"
		}
		r, err := s.CreateDeployment(ctx, &schedulerv1.CreateDeploymentRequest{Principal: p, Subdomain: i.subdomain,
			CustomDomain: i.custom, Image: imageRef(i.image), Tier: "small", EnvVars: env})
		return r.GetDeployment(), err
	case "restart":
		r, err := s.RestartDeployment(ctx, &schedulerv1.RestartDeploymentRequest{Principal: p, Id: id})
		return r.GetDeployment(), err
	case "scale":
		r, err := s.ScaleDeployment(ctx, &schedulerv1.ScaleDeploymentRequest{Principal: p, Id: id, Count: i.count})
		return r.GetDeployment(), err
	case "rollback":
		r, err := s.RollbackDeployment(ctx, &schedulerv1.RollbackDeploymentRequest{Principal: p, Id: id})
		return r.GetDeployment(), err
	case "stop":
		r, err := s.StopDeployment(ctx, &schedulerv1.StopDeploymentRequest{Principal: p, Id: id})
		return r.GetDeployment(), err
	case "destroy":
		r, err := s.DestroyDeployment(ctx, &schedulerv1.DestroyDeploymentRequest{Principal: p, Id: id})
		return r.GetDeployment(), err
	}
	return nil, fmt.Errorf("no command %q", i.what)
}

// understood errors are answers that a scheduler may give in these runs.
func understood(err error) bool {
	switch problem.From(err).Code {
	case problem.CodeInternal:
		return strings.Contains(err.Error(), errDead.Error())
	}
	return true
}

// tiers knows one.
type tiers struct{ billingv1.TierServiceClient }

func (tiers) GetTier(context.Context, *billingv1.GetTierRequest, ...grpc.CallOption) (*billingv1.GetTierResponse, error) {
	return &billingv1.GetTierResponse{Tier: &billingv1.Tier{Id: "t1", Slug: "small", MemoryLimitMb: instanceMB, CpuLimitMillicores: 100, CustomDomainAllowed: true}}, nil
}

// instanceMB is what an instance takes of a node.
const instanceMB = 256

// keys are the data keys there are; values are not really sealed.
type keys struct {
	mu   sync.Mutex
	held map[subjects.Aggregate]bool
}

func (k *keys) all() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var ids []string
	for a := range k.held {
		ids = append(ids, a.ID)
	}
	slices.Sort(ids)
	return ids
}

// sealer is the keys as a scheduler reaches them.
type sealer struct {
	p *proc
	k *keys
}

func (s sealer) Seal(ctx context.Context, a subjects.Aggregate, env map[string]string) (names []string, ciphertext []byte, err error) {
	err = s.p.do(ctx, kindLoad, "make a key", func(verdict) error {
		s.k.mu.Lock()
		defer s.k.mu.Unlock()
		s.k.held[a] = true
		ciphertext, err = json.Marshal(env)
		return err
	})
	return slices.Sorted(maps.Keys(env)), ciphertext, err
}

func (s sealer) Open(_ context.Context, a subjects.Aggregate, ciphertext []byte) (env map[string]string, err error) {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	if !s.k.held[a] {
		return nil, fmt.Errorf("the key of %s is destroyed", a)
	}
	return env, json.Unmarshal(ciphertext, &env)
}

// Rotate has nothing to do: there is no master key here.
func (s sealer) Rotate(context.Context) (seal.Rotated, error) { return seal.Rotated{}, nil }

func (s sealer) Destroy(ctx context.Context, a subjects.Aggregate) error {
	return s.p.do(ctx, kindKeys, "destroy "+s.p.w.short(a.ID), func(verdict) error {
		if planted == plantKeepKey {
			return nil
		}
		s.k.mu.Lock()
		defer s.k.mu.Unlock()
		delete(s.k.held, a)
		return nil
	})
}
