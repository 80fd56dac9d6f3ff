package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/e2e/podman"
	"github.com/slipway-paas/slipway/e2e/stack"
)

const (
	// quietWithin bounds how long after a round all must be well again.
	quietWithin = 60 * time.Second
	lookEvery   = 150 * time.Millisecond
	lookWithin  = 15 * time.Second
	// slow is worth saying what was waited for.
	slow  = 8 * time.Second
	still = 2
)

// run is one platform that suffers.
type run struct {
	setup   setup
	seed    uint64
	s       *stack.Stack
	js      jetstream.JetStream
	victims []victim
	owners  [clients]*owner
	ledger  *ledger
	traffic *traffic
	// untouched are the containers of the apps that nobody touches, by deployment.
	untouched map[string]string
	total     totals
}

// totals are the figures of a run.
type totals struct {
	rounds, kills, events, served, excused, nodesLost int
	victims                                           map[string]int
	// inLog is how many commands in doubt turned out to be in the log.
	inLog int
	// away is how long the edge was, at most, and quiet how long it took until all was
	// well after the last client's last command.
	away, quiet time.Duration
}

// failed is a round after which something was not as it must be.
type failed struct {
	round    round
	problems []string
	story    string
}

func (f *failed) Error() string {
	return fmt.Sprintf("%s:\n  %s", f.round, strings.Join(f.problems, "\n  "))
}

// begin readies a platform: apps that nobody touches, visitors, clients.
func begin(ctx context.Context, s *stack.Stack, of setup, seed uint64) (*run, func(), error) {
	js, closeNATS, err := s.ConnectNATS("chaos")
	if err != nil {
		return nil, nil, err
	}
	r := &run{setup: of, seed: seed, s: s, js: js, ledger: &ledger{}, untouched: map[string]string{}, total: totals{victims: map[string]int{}}}
	r.victims = of.victims(s)
	image, err := s.Push(ctx, "e2e/chaos:latest", "one")
	if err != nil {
		closeNATS()
		return nil, nil, err
	}
	for c := range r.owners {
		o := &owner{number: c, api: s.API, token: s.Token, image: image, ledger: r.ledger}
		for i := range o.slots {
			o.slots[i].subdomain = fmt.Sprintf("client-%d-%d", c, i)
		}
		r.owners[c] = o
	}
	hosts, err := r.deployUntouched(ctx, image)
	if err != nil {
		closeNATS()
		return nil, nil, err
	}
	r.traffic = newTraffic(s.Edge, hosts)
	return r, func() {
		r.traffic.leave()
		closeNATS()
	}, nil
}

// deployUntouched deploys the apps that nobody touches and returns their hosts.
func (r *run) deployUntouched(ctx context.Context, image string) ([]string, error) {
	bystander := &owner{number: -1, api: r.s.API, token: r.s.Token, image: image, ledger: r.ledger}
	var hosts []string
	for i := range still {
		bystander.slots[i].subdomain = fmt.Sprintf("still-%d", i)
		bystander.ask(ctx, 0, step{slot: i, trace: [2]uint64{1, uint64(i) + 1}})
		if bystander.slots[i].deployment == "" {
			return nil, fmt.Errorf("deploy an app that nobody touches: %s", r.ledger.of(0))
		}
		hosts = append(hosts, r.s.Host(bystander.slots[i].subdomain))
	}
	if _, _, problems := r.quiet(ctx); len(problems) > 0 {
		return nil, fmt.Errorf("deploy apps that nobody touches: %s", strings.Join(problems, "; "))
	}
	list, err := r.containers(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range list {
		r.untouched[c.Labels[labelDeployment]] = c.ID
	}
	return hosts, nil
}

// play plays one round and returns a line about it; the error is a *failed when the
// platform did wrong.
func (r *run) play(ctx context.Context, number int) (string, error) {
	p := plan(r.seed, r.setup.name, names(r.victims), number)
	var victim victim
	for _, v := range r.victims {
		if v.name == p.victim {
			victim = v
		}
	}
	var working sync.WaitGroup
	for c, o := range r.owners {
		working.Go(func() { o.act(ctx, number, p.wants[c]) })
	}
	away, err := r.strike(ctx, p, victim)
	working.Wait()
	if err != nil {
		return "", &failed{p, []string{err.Error()}, r.story(nil, number)}
	}
	begun := time.Now()
	h, waited, problems := r.quiet(ctx)
	took := time.Since(begun)
	served, excused, missed := r.traffic.since(away)
	problems = append(problems, missed...)
	if problems = append(problems, r.ledger.brokenPromises()...); len(problems) > 0 {
		return "", &failed{p, problems, r.story(h, number)}
	}
	for _, o := range r.owners {
		o.learn(h)
	}
	line := fmt.Sprintf("%s: %s; %d visits, %d failed while the edge was away; well again after %s", p, r.tally(number), served, excused, took.Round(time.Millisecond))
	if away != nil {
		line += fmt.Sprintf(", the edge was away for %s", away.to.Sub(away.from).Round(time.Millisecond))
		r.total.away = max(r.total.away, away.to.Sub(away.from))
	}
	if took > slow {
		line += ", waited for: " + strings.Join(waited, "; ")
	}
	r.total.rounds++
	r.total.victims[p.victim]++
	r.total.served += served
	r.total.excused += excused
	r.total.quiet = max(r.total.quiet, took)
	r.total.events, r.total.nodesLost = h.events, h.nodesLost
	r.total.inLog = 0
	for _, c := range r.ledger.all() {
		if c.outcome == unknown && len(h.requests[c.trace]) > 0 {
			r.total.inLog++
		}
	}
	return line, nil
}

// strike kills the round's victim, and returns when the edge was away if it was the
// edge.
func (r *run) strike(ctx context.Context, p round, v victim) (*window, error) {
	if err := sleep(ctx, p.moment); err != nil {
		return nil, err
	}
	from := time.Now()
	killed, err := v.kill(ctx, r.s)
	if err != nil {
		return nil, err
	}
	r.total.kills++
	if err := v.revive(ctx, r.s, p.down, killed); err != nil {
		return nil, err
	}
	if p.again > 0 {
		if err := sleep(ctx, p.again); err != nil {
			return nil, err
		}
		if killed, err = v.kill(ctx, r.s); err != nil {
			return nil, err
		}
		r.total.kills++
		if err := v.revive(ctx, r.s, p.down, killed); err != nil {
			return nil, err
		}
	}
	if v.name != edge {
		return nil, nil
	}
	err = within(ctx, quietWithin, func(ctx context.Context) (bool, string, error) {
		answer, err := client.Visit(ctx, r.s.Edge, r.s.Host("still-0"), http.MethodGet, "/", nil)
		return err == nil && answer.Status == http.StatusOK, fmt.Sprint(answer, err), nil
	})
	if err != nil {
		return nil, fmt.Errorf("the edge does not come back: %w", err)
	}
	return &window{from, time.Now()}, nil
}

// quiet waits until all is as it must be and returns the log then, and what was waited
// for last; problems are what was still not so in the end.
func (r *run) quiet(ctx context.Context) (h *history, waited, problems []string) {
	deadline := time.Now().Add(quietWithin)
	for {
		h, doubt, forever := r.look(ctx)
		if len(forever) > 0 || len(doubt) == 0 {
			return h, waited, forever
		}
		waited = doubt
		if time.Now().After(deadline) {
			return h, waited, append([]string{fmt.Sprintf("not well again within %s", quietWithin)}, doubt...)
		}
		if err := sleep(ctx, lookEvery); err != nil {
			return h, waited, []string{err.Error()}
		}
	}
}

func (r *run) look(ctx context.Context) (h *history, doubt, forever []string) {
	for _, p := range r.s.Processes() {
		if err := p.Running(); err != nil {
			forever = append(forever, "nobody killed it, but "+err.Error())
		}
	}
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	events, err := readLog(ctx, r.js)
	if err != nil {
		return nil, []string{err.Error()}, forever
	}
	h = fold(events)
	if open := unfinished(h); len(open) > 0 {
		return h, open, append(forever, doubled(h)...)
	}
	w, err := r.world(ctx, h)
	if err != nil {
		return h, []string{err.Error()}, forever
	}
	doubt, wrong := verify(r.ledger.all(), h, w, r.untouched)
	return h, doubt, append(forever, wrong...)
}

// world looks at everything outside of the log.
func (r *run) world(ctx context.Context, h *history) (world, error) {
	w := world{pages: map[string]page{}, rows: map[string]string{}}
	api := r.s.Client()
	if answer, err := api.Do(ctx, http.MethodGet, "/api/v1/health", nil); err != nil || answer.Status != http.StatusOK {
		return w, fmt.Errorf("the platform is not ready: %s, %w", answer, err)
	}
	answer, err := api.Do(ctx, http.MethodGet, apps, nil)
	if err != nil || answer.Status != http.StatusOK {
		return w, fmt.Errorf("list the deployments: %s, %w", answer, err)
	}
	for _, d := range answer.List("deployments") {
		id, _ := d["id"].(string)
		w.rows[id], _ = d["status"].(string)
	}
	if w.containers, err = r.containers(ctx); err != nil {
		return w, err
	}
	for _, name := range h.names() {
		answer, err := client.Visit(ctx, r.s.Edge, r.s.Host(name), http.MethodGet, "/env?name="+secret, nil)
		if err != nil {
			return w, err
		}
		told, _ := answer.JSON()["value"].(string)
		w.pages[name] = page{answer.Status, told}
	}
	if r.setup.options.NATSServers > 0 {
		return w, r.replicated(ctx)
	}
	return w, nil
}

func (r *run) containers(ctx context.Context) ([]podman.Container, error) {
	var all []podman.Container
	for _, node := range r.s.Nodes() {
		list, err := node.Podman().Containers(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

// replicated says whether every server has all: before that, killing another one is
// not the loss of one server.
func (r *run) replicated(ctx context.Context) error {
	streams := r.js.ListStreams(ctx)
	var failures []error
	for info := range streams.Info() {
		if info.Cluster == nil || info.Cluster.Leader == "" || len(info.Cluster.Replicas) != clusterSize-1 {
			failures = append(failures, fmt.Errorf("the stream %s is not whole", info.Config.Name))
			continue
		}
		for _, replica := range info.Cluster.Replicas {
			if !replica.Current || replica.Offline {
				failures = append(failures, fmt.Errorf("%s of %s lags by %d", replica.Name, info.Config.Name, replica.Lag))
			}
		}
	}
	return errors.Join(append(failures, streams.Err())...)
}

// tally is what became of the round's commands.
func (r *run) tally(number int) string {
	n := map[outcome]int{}
	for _, c := range r.ledger.all() {
		if c.round == number {
			n[c.outcome]++
		}
	}
	return fmt.Sprintf("%d commands acknowledged, %d refused, %d without an answer", n[acknowledged], n[refused], n[unknown])
}

// story is what to read when a round has failed.
func (r *run) story(h *history, number int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "the clients' ledger of the round:\n%s", r.ledger.of(number))
	if h == nil {
		return b.String()
	}
	concerned := map[string]bool{}
	for _, c := range r.ledger.all() {
		if c.round == number {
			concerned[c.subdomain] = true
		}
	}
	for _, d := range h.order {
		if !concerned[d.subdomain] {
			continue
		}
		const most = 60
		fmt.Fprintf(&b, "the log of %s:\n  %s\n", d, strings.Join(d.story[max(0, len(d.story)-most):], "\n  "))
	}
	return b.String()
}

// figures are the run's result.
func (r *run) figures() string {
	t := r.total
	return fmt.Sprintf("%d rounds, %d kills %v; %d commands acknowledged (%d creates, %d restarts, %d stops, %d destroys), %d refused, %d without an answer of which %d are in the log; "+
		"%d events; %d visits of untouched apps served, %d failed while the edge was away (at most %s), slowest %s; well again after at most %s; nodes counted as lost: %d",
		t.rounds, t.kills, t.victims, r.ledger.count("", acknowledged),
		r.ledger.count(create, acknowledged), r.ledger.count(restart, acknowledged), r.ledger.count(stop, acknowledged), r.ledger.count(destroy, acknowledged),
		r.ledger.count("", refused), r.ledger.count("", unknown), t.inLog,
		t.events, t.served, t.excused, t.away.Round(time.Millisecond), r.traffic.leave().Round(time.Millisecond), t.quiet.Round(time.Millisecond), t.nodesLost)
}
