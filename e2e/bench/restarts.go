package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/slipway-paas/slipway/e2e/client"
)

const restarts = 20

func restartsSection(ctx context.Context, b *bench) (err error) {
	s, done, err := b.platform(ctx)
	if err != nil {
		return err
	}
	defer done(&err)
	a, err := newApps(ctx, s)
	if err != nil {
		return err
	}
	subdomain, _, err := a.deploy(ctx)
	if err != nil {
		return err
	}
	path := "/api/deploy/apps/" + a.live[subdomain]
	if err := running(ctx, a.c, path); err != nil {
		return err
	}
	visiting, leave := context.WithCancel(ctx)
	defer leave()
	var served, failed atomic.Int64
	var wait sync.WaitGroup
	for _, method := range []string{http.MethodGet, http.MethodGet, http.MethodPost, http.MethodPost} {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for visiting.Err() == nil {
				// Not cut short when the visitors leave: what was sent is finished.
				answer, err := client.Visit(ctx, s.Edge, s.Host(subdomain), method, "/", strings.NewReader("a body"))
				if err != nil || answer.Status != http.StatusOK {
					failed.Add(1)
					continue
				}
				served.Add(1)
			}
		}()
	}
	for i := range restarts {
		answer, err := a.c.Do(ctx, http.MethodPost, path+"/restart", nil)
		if err == nil && answer.Status != http.StatusOK {
			err = fmt.Errorf("restart %d: %s", i, answer)
		}
		if err == nil {
			err = running(ctx, a.c, path)
		}
		if err != nil {
			leave()
			wait.Wait()
			return err
		}
	}
	leave()
	wait.Wait()
	say(fmt.Sprintf("failed requests over %d restarts", restarts),
		fmt.Sprintf("%d of %d", failed.Load(), failed.Load()+served.Load()), "must be 0")
	return nil
}

func running(ctx context.Context, c *client.Client, path string) error {
	return client.Poll(ctx, func(ctx context.Context) (bool, string, error) {
		answer, err := c.Do(ctx, http.MethodGet, path+"/status", nil)
		if err != nil {
			return false, err.Error(), nil
		}
		return answer.JSON()["status"] == "running", answer.String(), nil
	})
}
