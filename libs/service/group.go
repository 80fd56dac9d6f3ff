package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Runnable is a part that works until its context ends; it returns nil on a clean stop.
type Runnable interface {
	Run(ctx context.Context) error
}

// RunFunc makes a function a Runnable.
type RunFunc func(ctx context.Context) error

// Run calls the function.
func (f RunFunc) Run(ctx context.Context) error { return f(ctx) }

// Readiness is a part that can say whether it does its work: nil, or what is missing.
type Readiness interface {
	Ready() error
}

// stopAfter bounds how long one part may take to stop.
const stopAfter = 30 * time.Second

// Group runs named parts together. They start in the order they were added and
// stop one by one in reverse, so that a part outlives those that stand on it. When
// one ends by itself, all end.
type Group struct {
	log     *slog.Logger
	members []member
}

type member struct {
	name string
	part Runnable
}

// NewGroup makes an empty group.
func NewGroup(log *slog.Logger) *Group { return &Group{log: log} }

// Add adds a part before Run.
func (g *Group) Add(name string, part Runnable) {
	g.members = append(g.members, member{name: name, part: part})
}

// Checks are the readiness checks of the parts that have one, by name.
func (g *Group) Checks() map[string]func() error {
	checks := map[string]func() error{}
	for _, m := range g.members {
		if r, ok := m.part.(Readiness); ok {
			checks[m.name] = r.Ready
		}
	}
	return checks
}

type ended struct {
	index int
	err   error
}

// Run runs all parts until ctx ends or one of them does, then stops all. It returns
// nil when all stopped cleanly because ctx ended.
func (g *Group) Run(ctx context.Context) error {
	cancels := make([]context.CancelFunc, len(g.members))
	done := make([]chan struct{}, len(g.members))
	results := make(chan ended, len(g.members))
	for i, m := range g.members {
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		cancels[i], done[i] = cancel, make(chan struct{})
		defer cancel()
		go func() {
			defer close(done[i])
			results <- ended{index: i, err: m.part.Run(own)}
		}()
	}

	var failure error
	select {
	case <-ctx.Done():
	case e := <-results:
		failure = g.explain(e)
		g.log.Error("stopping all, because one part ended", "part", g.members[e.index].name, "error", failure)
	}
	for i := len(g.members) - 1; i >= 0; i-- {
		cancels[i]()
		select {
		case <-done[i]:
		case <-time.After(stopAfter):
			failure = errors.Join(failure, fmt.Errorf("%s did not stop within %s", g.members[i].name, stopAfter))
		}
	}
	return errors.Join(failure, g.rest(results))
}

// explain makes an error of a part that ended before it was told to.
func (g *Group) explain(e ended) error {
	if e.err == nil {
		return fmt.Errorf("%s ended by itself", g.members[e.index].name)
	}
	return fmt.Errorf("%s: %w", g.members[e.index].name, e.err)
}

// rest gathers what the parts that stopped since said.
func (g *Group) rest(results chan ended) error {
	var failures []error
	for {
		select {
		case e := <-results:
			if e.err != nil && !errors.Is(e.err, context.Canceled) {
				failures = append(failures, g.explain(e))
			}
		default:
			return errors.Join(failures...)
		}
	}
}
