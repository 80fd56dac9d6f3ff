package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/slipway-paas/slipway/e2e/client"
	"github.com/slipway-paas/slipway/e2e/stack"
)

const (
	// findWithin is how long a victim may be away already when it is to be killed.
	findWithin = 20 * time.Second
	// settled is how long a database must run to have started for good.
	settled = 700 * time.Millisecond
	// startsAtMost bounds how often a supervisor would start it.
	startsAtMost = 30
)

// Names of victims that are not processes of the stack by that name.
const (
	edge     = "slipway-edge"
	postgres = "postgres"
	service  = "podman system service"
)

// victim is a process to kill.
type victim struct {
	name string
	// find finds it where the platform itself starts it again; nil when the stack does.
	find func() ([]int, error)
}

// setup is one shape of the platform, and who may die in it.
type setup struct {
	name    string
	start   func(context.Context, stack.Options) (*stack.Stack, error)
	options stack.Options
	victims func(*stack.Stack) []victim
	// share is how many of 25 rounds are its.
	share int
}

const clusterSize = 3

func setups() []setup {
	return []setup{
		{"standalone", stack.Standalone, stack.Options{}, standaloneVictims, 9},
		{"processes", stack.Processes, stack.Options{}, processVictims, 11},
		{"cluster", stack.Standalone, stack.Options{NATSServers: clusterSize}, clusterVictims, 5},
	}
}

// rounds is the setup's part of all rounds: at least one.
func (s setup) rounds(all int) int { return max(1, all*s.share/25) }

func standaloneVictims(s *stack.Stack) []victim {
	child := func(program string) func() ([]int, error) {
		return func() ([]int, error) { return s.Children(program) }
	}
	return []victim{{name: stack.Daemon}, {edge, child(edge)}, {service, s.PodmanService}, {postgres, child(postgres)}}
}

func processVictims(s *stack.Stack) []victim {
	list := []victim{{service, s.PodmanService}}
	for _, p := range s.Processes() {
		list = append(list, victim{name: p.Name})
	}
	return list
}

func clusterVictims(*stack.Stack) []victim {
	var list []victim
	for n := range clusterSize {
		list = append(list, victim{name: stack.NATSServerName(n)})
	}
	return list
}

func names(list []victim) []string {
	var out []string
	for _, v := range list {
		out = append(out, v.name)
	}
	return out
}

// kill ends the victim as a crash would, and returns what was killed.
func (v victim) kill(ctx context.Context, s *stack.Stack) ([]int, error) {
	if v.find == nil {
		p := s.Process(v.name)
		return []int{p.Pid()}, p.Kill()
	}
	var pids []int
	err := within(ctx, findWithin, func(context.Context) (bool, string, error) {
		var err error
		pids, err = v.find()
		return len(pids) > 0, "it does not run", err
	})
	if err != nil {
		return nil, fmt.Errorf("kill %s: %w", v.name, err)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return nil, fmt.Errorf("kill %s: %w", v.name, err)
		}
	}
	return pids, nil
}

// revive starts the victim again after that long, or waits until the platform has.
func (v victim) revive(ctx context.Context, s *stack.Stack, down time.Duration, killed []int) error {
	if v.find != nil {
		err := within(ctx, findWithin, func(context.Context) (bool, string, error) {
			pids, err := v.find()
			return slices.ContainsFunc(pids, func(pid int) bool { return !slices.Contains(killed, pid) }), "it does not run", err
		})
		if err != nil {
			return fmt.Errorf("%s does not come back by itself: %w", v.name, err)
		}
		return nil
	}
	if err := sleep(ctx, down); err != nil {
		return err
	}
	for range startsAtMost {
		if err := s.Restart(v.name); err != nil {
			return err
		}
		if v.name != postgres {
			return nil
		}
		// A server refuses to start while children of the one that was killed end.
		select {
		case <-s.Process(v.name).Ended():
		case <-time.After(settled):
			return nil
		}
	}
	return fmt.Errorf("%s does not start:\n%s", v.name, s.Process(v.name).Tail())
}

func within(ctx context.Context, most time.Duration, check func(context.Context) (bool, string, error)) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	return client.Poll(ctx, check)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
