package domain

import (
	"hash/fnv"
	"time"
)

// Bounds of looking at a domain that is not verified yet.
const (
	firstWait = 5 * time.Second
	mostWait  = time.Hour
	// growth is the share of the time since it was added, or asked about, that passes
	// until the next look: with a quarter, some 25 looks in the first hour and an hour
	// between two after four.
	growth = 4
)

// NextCheck is when a domain that is pending is looked at after now; zero once it has
// been for longer than giveUp. It follows from the log alone, so that it is the same
// after a restart, and domains that were added together are spread.
func NextCheck(s State, now time.Time, giveUp time.Duration) time.Time {
	age := now.Sub(s.Since)
	if age >= giveUp {
		return time.Time{}
	}
	wait := min(max(age/growth, firstWait), mostWait)
	return now.Add(spread(s.ID, wait))
}

// spread is wait and up to an eighth more, always the same for an id.
func spread(id string, wait time.Duration) time.Duration {
	sum := fnv.New32a()
	// A hash never fails to be written to.
	_, _ = sum.Write([]byte(id))
	return wait + wait/8*time.Duration(sum.Sum32()%1024)/1024
}

// Recheck is when a verified domain is looked at after now.
func Recheck(s State, now time.Time, every time.Duration) time.Time {
	return now.Add(spread(s.ID, every))
}
