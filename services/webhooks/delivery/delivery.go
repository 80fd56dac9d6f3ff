// Package delivery says when a delivery is tried again, when it is given up, and when
// an endpoint counts as dead. It is pure.
package delivery

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// Statuses of a delivery.
const (
	Pending   = "pending"
	Delivered = "delivered"
	Failed    = "failed"
)

const (
	// MaxAttempts: with the waits between, a delivery is given up after some 15 hours.
	MaxAttempts = 9
	gone        = 410
	firstWait   = 5 * time.Second
	growth      = 4
	maxWait     = 6 * time.Hour
	// spread is how much of a wait is left to chance, so that what failed together does
	// not come back together.
	spread = 0.2
	// DeadAfter is how long an endpoint may fail without a single success.
	DeadAfter = 5 * 24 * time.Hour
)

// ID is the same for the same event and webhook, whoever delivers and however often.
func ID(webhook string, sequence uint64) string {
	hash := sha256.Sum256(fmt.Appendf(nil, "%s %d", webhook, sequence))
	return "msg_" + hex.EncodeToString(hash[:16])
}

// Wait is how long to wait after so many failed attempts, 1 for the first; jitter is
// from 0 to 1. It is not shorter than the endpoint asks, unless that is unreasonable.
// ok is false when the delivery is to be given up.
func Wait(attempts int, jitter float64, asked time.Duration) (wait time.Duration, ok bool) {
	if attempts < 1 || attempts >= MaxAttempts {
		return 0, false
	}
	wait = firstWait
	for range attempts - 1 {
		wait = min(wait*growth, maxWait)
	}
	wait = time.Duration(float64(wait) * (1 - spread + 2*spread*jitter))
	return max(wait, min(asked, maxWait)), true
}

// Accepted reports whether an answer means that the event was taken.
func Accepted(status int) bool { return status >= 200 && status < 300 }

// Gone reports whether an answer means that nothing should come any more.
func Gone(status int) bool { return status == gone }

// Past is what is known of one delivery to an endpoint.
type Past struct {
	Status                string
	Attempts              uint32
	FirstAttempt, LastTry time.Time
}

// FailingSince is since when an endpoint has taken nothing: the first failed attempt
// after the last success and after it was enabled; zero when it is not failing.
func FailingSince(past []Past, enabled time.Time) time.Time {
	success := enabled
	for _, p := range past {
		if p.Status == Delivered && p.LastTry.After(success) {
			success = p.LastTry
		}
	}
	var since time.Time
	for _, p := range past {
		if p.Status != Delivered && p.Attempts > 0 && p.FirstAttempt.After(success) && (since.IsZero() || p.FirstAttempt.Before(since)) {
			since = p.FirstAttempt
		}
	}
	return since
}

// Dead reports whether an endpoint that fails since then is to be given up.
func Dead(since, now time.Time) bool { return !since.IsZero() && now.Sub(since) >= DeadAfter }
