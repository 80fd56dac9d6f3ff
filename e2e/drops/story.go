// Package drops tells the story of an app that is restarted, scaled and rolled back
// while others come and go, and counts what its visitors, and those of an app that
// nobody touches, lost by it: which must be nothing.
package drops

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/e2e/stack"
)

// stepLimit bounds each change of the app.
const stepLimit = 90 * time.Second

// Options say how long the story is.
type Options struct {
	// Name begins the subdomains and names the images.
	Name string
	// Restarts of the app; after a third of them it is scaled 1-3-1, after the second
	// third rolled back.
	Restarts int
	// Others are apps that come and go meanwhile, two at once.
	Others int
}

// story is one telling.
type story struct {
	s     *stack.Stack
	c     *client.Client
	o     Options
	image string
	tally *tally

	mu sync.Mutex
	// ends are the events that each app's last change ended with.
	ends map[string]string
}

// Tell tells the story on a running platform. The error is for what the platform did
// not do; what the visitors lost is in the report.
func Tell(ctx context.Context, s *stack.Stack, o Options) (*Report, error) {
	st := &story{s: s, c: s.Client(), o: o, image: "drops/" + o.Name + ":latest", tally: newTally(), ends: map[string]string{}}
	reference, err := s.Push(ctx, st.image, "one")
	if err != nil {
		return nil, err
	}
	app, err := st.deploy(ctx, o.Name, reference)
	if err != nil {
		return nil, err
	}
	defer func() { _ = st.destroy(context.WithoutCancel(ctx), app) }()
	untouched, err := st.deploy(ctx, o.Name+"-calm", reference)
	if err != nil {
		return nil, err
	}
	defer func() { _ = st.destroy(context.WithoutCancel(ctx), untouched) }()

	st.tally.began = time.Now()
	leave := make(chan struct{})
	left := sync.OnceFunc(func() { close(leave) })
	defer left()
	var visitors sync.WaitGroup
	for n, host := range []string{s.Host(o.Name), s.Host(o.Name + "-calm")} {
		st.visit(ctx, leave, &visitors, host, n == 0)
	}
	done := make(chan error, 1)
	crowd, leaveCrowd := context.WithCancel(ctx)
	defer leaveCrowd()
	go func() { done <- st.crowd(crowd, reference) }()
	err = st.change(ctx, app)
	if err != nil {
		leaveCrowd()
	}
	err = errors.Join(err, <-done)
	left()
	visitors.Wait()
	r := st.tally.r
	r.Took = time.Since(st.tally.began)
	return &r, err
}

// visit begins all kinds of visits to a host, staggered so that something is always
// in every phase.
func (st *story) visit(ctx context.Context, leave <-chan struct{}, visitors *sync.WaitGroup, host string, touched bool) {
	whose := "the untouched app, "
	if touched {
		whose = "the app, "
	}
	for _, k := range kinds() {
		for n := range k.phases {
			offset := k.period * time.Duration(n) / time.Duration(k.phases)
			visitors.Go(func() {
				newVisitor(st.s.Edge, host, k).visit(ctx, leave, offset, func(err error) { st.tally.visited(whose+k.name, err) })
			})
		}
	}
	streams := map[string]func(context.Context, <-chan struct{}, string, string, func()) error{"WebSocket": talk, "SSE": listen}
	for name, open := range streams {
		for n := range 4 {
			visitors.Go(func() {
				if !wait(leave, time.Duration(n)*250*time.Millisecond) {
					return
				}
				for {
					talked := false
					err := open(ctx, leave, st.s.Edge, host, func() {
						talked = true
						if !touched {
							st.tally.heard()
						}
					})
					switch {
					case errors.Is(err, errLeft) || ctx.Err() != nil:
						return
					case touched:
						st.tally.reopened(whose+name, !talked, err)
					default:
						st.tally.cut(whose+name, err)
					}
					if !wait(leave, between) {
						return
					}
				}
			})
		}
	}
}

// change does to the app all that may be done to it without its visitors noticing.
func (st *story) change(ctx context.Context, app string) error {
	for n := range st.o.Restarts {
		switch n {
		case st.o.Restarts / 3:
			for _, count := range []int{3, 1} {
				if err := st.scale(ctx, app, count); err != nil {
					return err
				}
			}
		case st.o.Restarts * 2 / 3:
			if err := st.rollback(ctx, app); err != nil {
				return err
			}
		}
		st.tally.does(fmt.Sprint("restart ", n+1))
		if err := st.do(ctx, "/api/deploy/apps/"+app+"/restart", nil); err != nil {
			return err
		}
		if err := st.until(ctx, app, "DeploymentRunning"); err != nil {
			return err
		}
		st.tally.r.Restarts++
	}
	return nil
}

func (st *story) scale(ctx context.Context, app string, count int) error {
	st.tally.does(fmt.Sprint("scale to ", count))
	if err := st.do(ctx, "/api/v1/apps/"+app+"/ps/scale", map[string]any{"processes": map[string]int{"web": count}}); err != nil {
		return err
	}
	if err := st.until(ctx, app, "DeploymentScaled"); err != nil {
		return err
	}
	st.tally.r.Scales++
	// The instances that left have their drain, and what is under way its end.
	wait(ctx.Done(), slow+2*time.Second)
	return nil
}

// rollback moves the tag on, restarts onto that, and goes back to what there was.
func (st *story) rollback(ctx context.Context, app string) error {
	if _, err := st.s.Push(ctx, st.image, "two"); err != nil {
		return err
	}
	st.tally.does("the release to roll back from")
	err := st.do(ctx, "/api/deploy/apps/"+app+"/restart", nil)
	if err == nil {
		err = st.until(ctx, app, "DeploymentRunning")
	}
	if err == nil {
		err = st.serves(ctx, "two")
	}
	if err != nil {
		return err
	}
	st.tally.does("rollback")
	if err := st.do(ctx, "/api/v1/apps/"+app+"/rollback", nil); err != nil {
		return err
	}
	if err := st.until(ctx, app, "DeploymentRunning"); err != nil {
		return err
	}
	st.tally.r.Rollbacks++
	return st.serves(ctx, "one")
}

func (st *story) serves(ctx context.Context, version string) error {
	answer, err := client.Visit(ctx, st.s.Edge, st.s.Host(st.o.Name), http.MethodGet, "/", nil)
	if err != nil {
		return err
	}
	if got := answer.JSON()["version"]; got != version {
		return fmt.Errorf("it serves version %v, want %s", got, version)
	}
	return nil
}

// crowd has other apps come and go, two at once.
func (st *story) crowd(ctx context.Context, image string) error {
	next := make(chan int)
	failed := make(chan error, 2)
	go func() {
		defer close(next)
		for n := range st.o.Others {
			select {
			case next <- n:
			case <-ctx.Done():
				return
			}
		}
	}()
	for range cap(failed) {
		go func() {
			for n := range next {
				id, err := st.deploy(ctx, fmt.Sprintf("%s-%d", st.o.Name, n), image)
				if err == nil {
					err = st.destroy(ctx, id)
				}
				if err != nil {
					failed <- fmt.Errorf("other app %d: %w", n, err)
					return
				}
				st.tally.mu.Lock()
				st.tally.r.Others++
				st.tally.mu.Unlock()
			}
			failed <- nil
		}()
	}
	var err error
	for range cap(failed) {
		err = errors.Join(err, <-failed)
	}
	return err
}

// deploy creates an app and waits until it runs.
func (st *story) deploy(ctx context.Context, subdomain, image string) (id string, err error) {
	answer, err := st.c.Do(ctx, http.MethodPost, "/api/deploy/apps", map[string]any{"subdomain": subdomain, "image": image, "tier": "buddo-starter", "port": 8080})
	if err != nil {
		return "", err
	}
	id, _ = answer.Object("deployment")["id"].(string)
	if answer.Status != http.StatusCreated || id == "" {
		return "", fmt.Errorf("create %s: %s", subdomain, answer)
	}
	return id, st.until(ctx, id, "DeploymentRunning")
}

func (st *story) destroy(ctx context.Context, id string) error {
	answer, err := st.c.Do(ctx, http.MethodDelete, "/api/deploy/apps/"+id, nil)
	if err == nil && answer.Status != http.StatusOK {
		err = fmt.Errorf("destroy: %s", answer)
	}
	return err
}

func (st *story) do(ctx context.Context, path string, body any) error {
	answer, err := st.c.Do(ctx, http.MethodPost, path, body)
	if err == nil && answer.Status != http.StatusOK {
		err = fmt.Errorf("POST %s: %s", path, answer)
	}
	return err
}

// until waits until what was asked for last has come to this end.
func (st *story) until(ctx context.Context, id, end string) error {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	var failed string
	var last client.Event
	err := st.c.Follow(ctx, "/api/deploy/apps/"+id+"/events", st.after(id), func(e client.Event) bool {
		last = e
		switch e.Type {
		case "ReleaseFailed", "ScaleFailed":
			failed = e.Type + ": " + e.Data
			return true
		case end:
			return true
		}
		return false
	})
	if err == nil && failed != "" {
		err = errors.New(failed)
	}
	if err != nil {
		return fmt.Errorf("waiting for %s of %s: %w", end, id, err)
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.ends[id] = last.ID
	return nil
}

// after is the event that the app's last change ended with.
func (st *story) after(id string) string {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.ends[id]
}
