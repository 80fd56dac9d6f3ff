package certs

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"time"
)

// remembered is a failure as all edges know it, so that together they do not ask the CA
// more often than one would, and neither does an edge that is restarted again and again.
type remembered struct {
	Failures int       `json:"failures"`
	RetryAt  time.Time `json:"retry_at"`
	Why      string    `json:"why"`
}

// errRemembered marks a failure that another attempt met, on this edge or another.
var errRemembered = errors.New("it is not yet time to try again")

func failurePath(subject string) string { return "slipway/failed/" + subject }

// recall fails while it is not yet time to try the name again. What cannot be read is no
// failure.
func (k *Keeper) recall(ctx context.Context, subject string) error {
	text, err := k.magic.storage.Load(ctx, failurePath(subject))
	if err != nil {
		return nil
	}
	var r remembered
	if err := json.Unmarshal(text, &r); err != nil {
		k.log.Warn("what is remembered of a certificate cannot be read", "name", subject, "error", err)
		return nil
	}
	k.mu.Lock()
	if st := k.states[subject]; st != nil {
		st.failures = r.Failures
	}
	k.mu.Unlock()
	if time.Now().Before(r.RetryAt) {
		return &failure{err: errors.Join(errRemembered, errors.New(r.Why)), retryAt: r.RetryAt, sentence: r.Why}
	}
	return nil
}

func (k *Keeper) remember(ctx context.Context, subject string, r remembered) {
	text, err := json.Marshal(r)
	if err == nil {
		err = k.magic.storage.Store(ctx, failurePath(subject), text)
	}
	if err != nil {
		k.log.Warn("a failure to get a certificate is not remembered", "name", subject, "error", err)
	}
}

func (k *Keeper) forgive(ctx context.Context, subject string) {
	k.mu.Lock()
	st := k.states[subject]
	failed := st != nil && st.failures > 0
	k.mu.Unlock()
	if !failed {
		return
	}
	if err := k.magic.storage.Delete(ctx, failurePath(subject)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.log.Warn("a failure to get a certificate stays remembered", "name", subject, "error", err)
	}
}
