package chaos

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Kinds of command.
const (
	create  = "create"
	restart = "restart"
	stop    = "stop"
	destroy = "destroy"
)

// outcome is what the client was told.
type outcome string

const (
	acknowledged outcome = "acknowledged"
	refused      outcome = "refused"
	// unknown is no answer, or one that says that nobody knows.
	unknown outcome = "unknown"
)

// command is one line of the ledger.
type command struct {
	round, client int
	kind          string
	subdomain     string
	// deployment is empty for a create that was not acknowledged.
	deployment string
	trace      string
	outcome    outcome
	said       string
}

func (c command) String() string {
	said := c.said
	if len(said) > 200 {
		said = said[:200] + "…"
	}
	return fmt.Sprintf("round %d, client %d: %s %s %s trace %s: %s: %s", c.round, c.client, c.kind, c.subdomain, c.deployment, c.trace, c.outcome, said)
}

// ledger holds what every client has asked for and was told.
type ledger struct {
	mu       sync.Mutex
	commands []command
	// broken are promises that an answer alone shows broken.
	broken []string
}

func (l *ledger) note(c command) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.commands = append(l.commands, c)
}

func (l *ledger) blame(c command, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = append(l.broken, why+": "+c.String())
}

func (l *ledger) all() []command {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.commands)
}

func (l *ledger) brokenPromises() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.broken)
}

// of are the lines of one round.
func (l *ledger) of(round int) string {
	var b strings.Builder
	for _, c := range l.all() {
		if c.round == round {
			fmt.Fprintln(&b, " ", c)
		}
	}
	return b.String()
}

// count is how many commands of a kind, or of all when it is empty, ended so.
func (l *ledger) count(kind string, o outcome) int {
	n := 0
	for _, c := range l.all() {
		if (kind == "" || c.kind == kind) && c.outcome == o {
			n++
		}
	}
	return n
}
