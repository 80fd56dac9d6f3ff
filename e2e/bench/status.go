package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

const connections = 64

var perSecond = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)

var notOK = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)`)

func statusSection(ctx context.Context, b *bench) (err error) {
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
	path := "/api/deploy/apps/" + a.live[subdomain] + "/status"
	answer, err := a.c.Do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the anchor: %w", err)
	}
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		// A failed write means that wrk has hung up.
		_, _ = w.Write(answer.Body)
	})}
	go func() { _ = server.Serve(listener) }() // ends with Close
	defer server.Close()
	bearer := "Authorization: Bearer " + s.Token
	var ours, theirs float64
	// Alternately, so that both meet the same machine.
	for range 2 {
		theirs, err = best(theirs)(wrk(ctx, "http://"+listener.Addr().String()+path, bearer))
		if err != nil {
			return err
		}
		ours, err = best(ours)(wrk(ctx, s.API+path, bearer))
		if err != nil {
			return err
		}
	}
	compare("GET status, 64 connections", fmt.Sprintf("%.0f/s", ours), fmt.Sprintf("in-memory handler %.0f/s", theirs),
		ratio(ours, theirs), "goal 0.8x, at least 0.5x")
	return nil
}

func best(sofar float64) func(float64, error) (float64, error) {
	return func(rate float64, err error) (float64, error) { return max(sofar, rate), err }
}

func wrk(ctx context.Context, url, header string) (float64, error) {
	return wrkWith(ctx, nil, "-H", header, url)
}

// wrkFor returns requests a second.
func wrkFor(ctx context.Context, long time.Duration, url, header string) (float64, error) {
	return wrkWith(ctx, nil, fmt.Sprintf("-d%.0fs", long.Seconds()), "-H", header, url)
}

// wrkWith runs wrk with more arguments and variables.
func wrkWith(ctx context.Context, environ []string, args ...string) (float64, error) {
	cmd := exec.CommandContext(ctx, "wrk", append([]string{"-t2", fmt.Sprintf("-c%d", connections), "-d5s"}, args...)...)
	cmd.Env = append(os.Environ(), environ...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("run wrk: %w: %s", err, out)
	}
	if m := notOK.FindSubmatch(out); m != nil {
		return 0, fmt.Errorf("%s requests were refused: %s", m[1], out)
	}
	m := perSecond.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("wrk said no rate: %s", out)
	}
	rate, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		return 0, fmt.Errorf("read wrk's rate: %w", err)
	}
	return rate, nil
}
