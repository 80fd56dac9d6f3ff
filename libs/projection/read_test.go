package projection

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/eventstore/memory"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// reading reads a log of so many events up to target, for a writer that takes its time
// over each chunk, and returns how many came.
func reading(t *testing.T, events, target int, slow time.Duration) (got int, err error) {
	t.Helper()
	store := memory.New()
	for n := range events {
		if _, err := store.Record(t.Context(), eventstore.Event{Aggregate: subjects.Of("acme", "purse", "p"), ID: fmt.Sprint(n),
			Payload: wrapperspb.Int64(1), Time: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	b := &building{
		live: &Runner{store: store, p: Projection{Filters: []string{subjects.KindFilter("purse")}}},
		next: &Runner{},
	}
	chunks, failed := make(chan []eventstore.Recorded), make(chan error, 1)
	go func() {
		defer close(chunks)
		failed <- b.read(t.Context(), uint64(target), chunks)
	}()
	for events := range chunks {
		got += len(events)
		time.Sleep(slow)
	}
	return got, <-failed
}

func TestThatWritingIsSlowIsNoSilenceOfTheLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		if got, err := reading(t, 2*chunk+100, 2*chunk+100, 3*patience); err != nil || got != 2*chunk+100 {
			t.Errorf("%d events were read, %v", got, err)
		}
	})
}

func TestALogThatEndsBeforeTheLiveRowsIsSaidToDoSo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, err := reading(t, 10, 11, 0)
		if err == nil || !strings.Contains(err.Error(), "nothing more") || errors.Is(err, errDone) {
			t.Errorf("reading ended with %v", err)
		}
	})
}
