package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/e2e/podman"
	"github.com/slipway-paas/slipway/e2e/stack"
)

const (
	appPort = "8080"
	tier    = "buddo-starter"
	// atOnce is how many starts are under way together, batch how many are measured,
	// rounds how often.
	atOnce = 8
	batch  = 32
	rounds = 3
)

// starterLimits are the tier's, for Podman alone.
func starterLimits() podman.Limits {
	return podman.Limits{MemoryMB: 256, CPUMillicores: 250, Pids: 512}
}

// apps deploys through the public API and counts names.
type apps struct {
	s     *stack.Stack
	c     *client.Client
	http  *http.Client
	image string

	mu   sync.Mutex
	next int
	live map[string]string // id by subdomain
}

func newApps(ctx context.Context, s *stack.Stack) (*apps, error) {
	image, err := s.Push(ctx, "bench/app:1", "bench")
	if err != nil {
		return nil, err
	}
	c := s.Client()
	c.HTTP = keptConnections()
	return &apps{s: s, c: c, http: keptConnections(), image: image, live: map[string]string{}}, nil
}

// deploy asks for an app and asks it through the edge until its first 200.
func (a *apps) deploy(ctx context.Context) (subdomain string, took time.Duration, err error) {
	return a.deployAnd(ctx, func(context.Context, string) error { return nil })
}

// deployAtOnce is deploy among others: it asks once the events say that the app is
// routed, as `slipway deploy` does, for a client that asks all the way from the POST
// takes a tenth of the machine from those it waits for. Podman's containers are only
// asked once they are started too.
func (a *apps) deployAtOnce(ctx context.Context) (subdomain string, took time.Duration, err error) {
	return a.deployAnd(ctx, func(ctx context.Context, id string) error {
		// Its answer ends with ctx, not after some seconds.
		events := *a.c
		events.HTTP = &http.Client{Transport: a.c.HTTP.Transport}
		return events.Follow(ctx, "/api/deploy/apps/"+id+"/events", "", func(e client.Event) bool { return e.Type == "RouteBound" })
	})
}

func (a *apps) deployAnd(ctx context.Context, wait func(ctx context.Context, id string) error) (subdomain string, took time.Duration, err error) {
	a.mu.Lock()
	a.next++
	subdomain = fmt.Sprintf("bench-%d", a.next)
	a.mu.Unlock()
	began := time.Now()
	answer, err := a.c.Do(ctx, http.MethodPost, "/api/deploy/apps",
		map[string]any{"subdomain": subdomain, "image": a.image, "tier": tier, "port": 8080})
	if err != nil {
		return subdomain, 0, err
	}
	if answer.Status != http.StatusCreated {
		return subdomain, 0, fmt.Errorf("create %s: %s", subdomain, answer)
	}
	id, _ := answer.Object("deployment")["id"].(string)
	a.mu.Lock()
	a.live[subdomain] = id
	a.mu.Unlock()
	if err := wait(ctx, id); err != nil {
		return subdomain, 0, fmt.Errorf("wait until %s is routed: %w", subdomain, err)
	}
	if err := first200(ctx, a.http, a.s.Edge+"/", a.s.Host(subdomain)); err != nil {
		return subdomain, 0, err
	}
	return subdomain, time.Since(began), nil
}

// destroy ends an app and waits until it is gone.
func (a *apps) destroy(ctx context.Context, subdomain string) error {
	a.mu.Lock()
	id := a.live[subdomain]
	delete(a.live, subdomain)
	a.mu.Unlock()
	answer, err := a.c.Do(ctx, http.MethodDelete, "/api/deploy/apps/"+id, nil)
	if err != nil {
		return err
	}
	if answer.Status != http.StatusOK {
		return fmt.Errorf("destroy %s: %s", subdomain, answer)
	}
	return client.Poll(ctx, func(ctx context.Context) (bool, string, error) {
		answer, err := a.c.Do(ctx, http.MethodGet, "/api/deploy/apps/"+id+"/status", nil)
		if err != nil {
			return false, err.Error(), nil
		}
		return answer.JSON()["status"] == "destroyed", answer.String(), nil
	})
}

// inParallel calls work n times, atOnce together, and returns how long all took.
func inParallel(ctx context.Context, n int, work func(context.Context, int) error) (time.Duration, error) {
	began := time.Now()
	numbers := make(chan int)
	failures := make(chan error, n)
	var wait sync.WaitGroup
	for range atOnce {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for i := range numbers {
				failures <- work(ctx, i)
			}
		}()
	}
	for i := range n {
		numbers <- i
	}
	close(numbers)
	wait.Wait()
	close(failures)
	var failure error
	for err := range failures {
		failure = errors.Join(failure, err)
	}
	return time.Since(began), failure
}

func deploySection(ctx context.Context, b *bench) (err error) {
	s, done, err := b.platform(ctx)
	if err != nil {
		return err
	}
	defer done(&err)
	a, err := newApps(ctx, s)
	if err != nil {
		return err
	}
	alone, err := newAnchor(ctx, s.Nodes()[0], a.image)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, alone.close()) }()

	ours, theirs, err := oneByOne(ctx, a, alone, b.runs)
	if err != nil {
		return err
	}
	compare("deploy, POST to first 200", ours.String(), "Podman alone "+theirs.String(),
		ratio(float64(ours.median), float64(theirs.median)), "goal 0.8x, at most 1.1x")
	oursRate, theirsRate, err := manyAtOnce(ctx, a, alone)
	if err != nil {
		return err
	}
	compare("starts at 8 at once", fmt.Sprintf("%.1f/s", oursRate), fmt.Sprintf("Podman alone %.1f/s", theirsRate),
		ratio(oursRate, theirsRate), "goal 1.8x, at least 1.2x")
	return nil
}

// oneByOne measures deploys alternately, so that both meet the same machine. The
// first of each is not counted: it pulls and warms.
func oneByOne(ctx context.Context, a *apps, alone *anchor, runs int) (ours, theirs spread, err error) {
	var mine, podmans []time.Duration
	where := &steps{took: map[string][]time.Duration{}}
	for i := range runs + 1 {
		subdomain, took, err := a.deploy(ctx)
		if err != nil {
			return ours, theirs, err
		}
		if i > 0 {
			if err := where.add(ctx, a.c, a.live[subdomain]); err != nil {
				return ours, theirs, err
			}
		}
		if err := a.destroy(ctx, subdomain); err != nil {
			return ours, theirs, err
		}
		name := fmt.Sprintf("alone-%d", i)
		tookAlone, err := alone.deploy(ctx, name, starterLimits())
		if err != nil {
			return ours, theirs, err
		}
		if err := alone.remove(ctx, name); err != nil {
			return ours, theirs, err
		}
		if i > 0 {
			mine, podmans = append(mine, took), append(podmans, tookAlone)
		}
	}
	fmt.Println("  a deploy's steps, medians:", where)
	return spreadOf(mine), spreadOf(podmans), nil
}

// manyAtOnce measures batches alternately, so that both meet the same machine, and
// returns the median rates.
func manyAtOnce(ctx context.Context, a *apps, alone *anchor) (ours, theirs float64, err error) {
	var mine, podmans []float64
	for range rounds {
		rate, err := a.batch(ctx)
		if err != nil {
			return 0, 0, err
		}
		aloneRate, err := alone.batch(ctx)
		if err != nil {
			return 0, 0, err
		}
		mine, podmans = append(mine, rate), append(podmans, aloneRate)
	}
	return middle(mine), middle(podmans), nil
}

// startsPerSecond is the median of some batches.
func (a *apps) startsPerSecond(ctx context.Context) (float64, error) {
	var rates []float64
	for range rounds {
		rate, err := a.batch(ctx)
		if err != nil {
			return 0, err
		}
		rates = append(rates, rate)
	}
	return middle(rates), nil
}

// batch deploys, atOnce together, takes all away again and returns the starts per second.
func (a *apps) batch(ctx context.Context) (float64, error) {
	names := make([]string, batch)
	took, err := inParallel(ctx, batch, func(ctx context.Context, i int) error {
		var err error
		names[i], _, err = a.deployAtOnce(ctx)
		return err
	})
	if err != nil {
		return 0, err
	}
	where := &steps{took: map[string][]time.Duration{}}
	for _, subdomain := range names {
		if err := where.add(ctx, a.c, a.live[subdomain]); err != nil {
			return 0, err
		}
	}
	fmt.Printf("  at %d at once, medians: %s\n", atOnce, where)
	_, err = inParallel(ctx, batch, func(ctx context.Context, i int) error { return a.destroy(ctx, names[i]) })
	return batch / took.Seconds(), err
}

func manySection(ctx context.Context, b *bench) (err error) {
	s, done, err := b.platform(ctx)
	if err != nil {
		return err
	}
	defer done(&err)
	a, err := newApps(ctx, s)
	if err != nil {
		return err
	}
	alone, err := newAnchor(ctx, s.Nodes()[0], a.image)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, alone.close()) }()
	base, _, err := oneByOne(ctx, a, alone, b.runs)
	if err != nil {
		return err
	}
	baseRate, err := a.startsPerSecond(ctx)
	if err != nil {
		return err
	}
	running := 0
	for _, n := range b.many {
		if _, err := inParallel(ctx, n-running, func(ctx context.Context, _ int) error {
			_, _, err := a.deployAtOnce(ctx)
			return err
		}); err != nil {
			return fmt.Errorf("fill up to %d apps: %w", n, err)
		}
		running = n
		ours, theirs, err := oneByOne(ctx, a, alone, b.runs)
		if err != nil {
			return err
		}
		compare(fmt.Sprintf("deploy with %d apps running", n), ours.String(), "Podman alone, now "+theirs.String(),
			ratio(float64(ours.median), float64(theirs.median)), "goal 0.8x, at most 1.1x")
		compare(fmt.Sprintf("deploy with %d apps running", n), ours.String(), "with none "+base.String(),
			ratio(float64(ours.median), float64(base.median)), "at most 1.3x")
		rate, err := a.startsPerSecond(ctx)
		if err != nil {
			return err
		}
		compare(fmt.Sprintf("starts at 8 at once with %d apps running", n), fmt.Sprintf("%.1f/s", rate),
			fmt.Sprintf("with none %.1f/s", baseRate), ratio(baseRate, rate), "at most 1.3x slower")
	}
	return nil
}
