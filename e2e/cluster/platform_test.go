package cluster

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/e2e/stack"
)

const apps = "/api/deploy/apps"

func TestThePlatformTakesCommandsWhileServersComeAndGo(t *testing.T) {
	s := startCluster(t)
	admin := connect(t, s, 0)
	provision(t, admin)
	p, err := stack.Standalone(t.Context(), stack.Options{
		Rollout: stack.Quick(), NATS: s.url(0), NATSKeys: s.keys(), NATSReplicas: size,
	})
	if err != nil {
		t.Fatalf("start the platform: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(p.Tails())
		}
		if err := p.Close(context.Background()); err != nil {
			t.Errorf("take the platform away: %v", err)
		}
	})
	image, err := p.Push(t.Context(), "e2e/cluster:latest", "one")
	if err != nil {
		t.Fatal(err)
	}
	o := &operator{p: p, created: map[string]string{}}
	if err := o.create(t.Context(), "visited", image); err != nil {
		t.Fatal(err)
	}
	visit := func(ctx context.Context) error {
		answer, err := client.Visit(ctx, p.Edge, p.Host("visited"), http.MethodGet, "/", nil)
		if err == nil && answer.Status != http.StatusOK {
			err = fmt.Errorf("it answers %s", answer)
		}
		return err
	}
	eventually(t, "the app answers", visit)

	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { o.work(ctx, t) })
	visits := 0
	running.Go(func() {
		for ; ctx.Err() == nil; visits++ {
			if err := visit(t.Context()); err != nil {
				t.Errorf("visit %d of an app that nobody touched: %v", visits, err)
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	defer running.Wait()
	defer stop()
	o.waitForMore(t, 10)
	leader := leaderOf(t, admin)
	t.Logf("kill %s, the leader of the log", name(leader))
	if err := s.kill(leader); err != nil {
		t.Fatal(err)
	}
	o.waitForMore(t, 10)
	killed := o.longest()
	if err := s.start(leader); err != nil {
		t.Fatal(err)
	}
	waitForReplicas(t, admin)
	leader = leaderOf(t, admin)
	t.Logf("cut %s off, the leader of the log", name(leader))
	if err := s.network.cut(leader); err != nil {
		t.Fatal(err)
	}
	o.waitForMore(t, 10)
	cut := o.longest()
	if err := s.network.mend(leader); err != nil {
		t.Fatal(err)
	}
	waitForReplicas(t, admin)
	o.waitForMore(t, 10)
	stop()
	running.Wait()
	t.Logf("%d deployments created, %d answers were failures and tried again; a command took at most %s with the leader killed, %s with the leader cut off; %d visits of the app",
		len(o.created), o.failures, killed.Round(time.Millisecond), cut.Round(time.Millisecond), visits)
	o.check(t)
}

// operator creates deployments one after the other and notes what it was promised.
type operator struct {
	p *stack.Stack

	mu sync.Mutex
	// created are the ids by subdomain.
	created  map[string]string
	failures int
	slowest  time.Duration
}

// work creates deployments of an image that does not exist: the commands count here.
func (o *operator) work(ctx context.Context, t *testing.T) {
	for n := 0; ctx.Err() == nil; n++ {
		attempt, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		begun := time.Now()
		err := o.create(attempt, fmt.Sprintf("deployment-%d", n), o.p.Image("e2e/none:latest"))
		cancel()
		if err != nil {
			t.Error(err)
			return
		}
		o.mu.Lock()
		o.slowest = max(o.slowest, time.Since(begun))
		o.mu.Unlock()
	}
}

// create asks until it is told that the deployment is there: by an answer, or by the
// name being taken after an answer that left it open.
func (o *operator) create(ctx context.Context, subdomain, image string) error {
	open := false
	for {
		answer, err := o.p.Client().Do(ctx, http.MethodPost, apps, map[string]any{"image": image, "port": 8080, "subdomain": subdomain, "tier": "buddo-starter"})
		switch {
		case err == nil && answer.Status == http.StatusCreated:
			id, _ := answer.Object("deployment")["id"].(string)
			o.note(subdomain, id)
			return nil
		case err == nil && answer.Status < 500 && !open:
			return fmt.Errorf("create %s: %s", subdomain, answer)
		case err == nil && answer.Status < 500:
			o.note(subdomain, "")
			return nil
		}
		open = true
		o.mu.Lock()
		o.failures++
		o.mu.Unlock()
		select {
		case <-ctx.Done():
			return fmt.Errorf("create %s: %s, %w", subdomain, answer, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (o *operator) note(subdomain, id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.created[subdomain] = id
}

// longest is how long a command took at most since the last call.
func (o *operator) longest() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	longest := o.slowest
	o.slowest = 0
	return longest
}

func (o *operator) waitForMore(t *testing.T, commands int) {
	t.Helper()
	count := func() int {
		o.mu.Lock()
		defer o.mu.Unlock()
		return len(o.created)
	}
	target := count() + commands
	eventually(t, "commands go on", func(context.Context) error {
		if n := count(); n < target {
			return fmt.Errorf("%d of %d deployments", n, target)
		}
		return nil
	})
}

// check holds what the platform knows against what it promised.
func (o *operator) check(t *testing.T) {
	t.Helper()
	answer, err := o.p.Client().Do(t.Context(), http.MethodGet, apps, nil)
	if err != nil || answer.Status != http.StatusOK {
		t.Fatalf("list the deployments: %s, %v", answer, err)
	}
	there := map[string][]any{}
	for _, d := range answer.List("deployments") {
		subdomain, _ := d["subdomain"].(string)
		there[subdomain] = append(there[subdomain], d["id"])
	}
	for subdomain, id := range o.created {
		if ids := there[subdomain]; len(ids) != 1 || id != "" && ids[0] != id {
			t.Errorf("%s was promised as %q, and is %v", subdomain, id, ids)
		}
	}
}
