package view_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/slipway-paas/slipway/libs/view"
)

const deadline = 10 * time.Second

// watching is a Watch that runs until the test ends, and the table it keeps.
type watching struct {
	t       *testing.T
	ready   chan struct{}
	changed chan struct{}

	mu    sync.Mutex
	table map[string]string
	told  []string
}

func watch(t *testing.T, v *view.View[*text], filter string) *watching {
	t.Helper()
	w := &watching{t: t, ready: make(chan struct{}), changed: make(chan struct{}, 1), table: map[string]string{}}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- v.Watch(ctx, filter, w.handle, func() { close(w.ready) }) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("watch returned %v when its context ended, wanted nil", err)
			}
		case <-time.After(deadline):
			t.Error("watch did not return when its context ended")
		}
	})
	return w
}

func (w *watching) handle(_ context.Context, c view.Change[*text]) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.Deleted {
		delete(w.table, c.Key)
		w.told = append(w.told, "-"+c.Key)
	} else {
		w.table[c.Key] = c.Value.GetValue()
		w.told = append(w.told, c.Key+"="+c.Value.GetValue())
	}
	select {
	case w.changed <- struct{}{}:
	default:
	}
	return nil
}

func (w *watching) waitReady() {
	w.t.Helper()
	select {
	case <-w.ready:
	case <-time.After(deadline):
		w.t.Fatal("the watch did not get ready")
	}
}

func (w *watching) waitFor(want map[string]string) {
	w.t.Helper()
	late := time.After(deadline)
	for {
		w.mu.Lock()
		diff := cmp.Diff(want, w.table)
		w.mu.Unlock()
		if diff == "" {
			return
		}
		select {
		case <-w.changed:
		case <-late:
			w.t.Fatalf("the table does not become the wanted one, - wanted + got:\n%s", diff)
		}
	}
}

func (w *watching) history() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.told...)
}

func TestWatchGivesWhatThereIsThenSaysReadyThenChanges(t *testing.T) {
	t.Parallel()
	_, v := start(t, jetstream.KeyValueConfig{})
	put(t, v, "n1.i1", "a")
	put(t, v, "n1.i2", "b")
	put(t, v, "n2.i9", "not ours")
	put(t, v, "n1.i0", "gone")
	remove(t, v, "n1.i0")
	w := watch(t, v, "n1.>")
	w.waitReady()
	if diff := cmp.Diff([]string{"n1.i1=a", "n1.i2=b"}, w.history()); diff != "" {
		t.Errorf("before ready, - wanted + got:\n%s", diff)
	}
	put(t, v, "n1.i1", "c")
	remove(t, v, "n1.i2")
	remove(t, v, "n1.never")
	put(t, v, "n1.i3", "d")
	w.waitFor(map[string]string{"n1.i1": "c", "n1.i3": "d"})
	if diff := cmp.Diff([]string{"n1.i1=a", "n1.i2=b", "n1.i1=c", "-n1.i2", "n1.i3=d"}, w.history()); diff != "" {
		t.Errorf("all in all, - wanted + got:\n%s", diff)
	}
}

func TestWatchOfAnEmptyBucketIsReadyAtOnce(t *testing.T) {
	t.Parallel()
	_, v := start(t, jetstream.KeyValueConfig{})
	w := watch(t, v, ">")
	w.waitReady()
	put(t, v, "a.b.c", "1")
	w.waitFor(map[string]string{"a.b.c": "1"})
}

func TestWatchStopsWhenItsHandlerFails(t *testing.T) {
	t.Parallel()
	_, v := start(t, jetstream.KeyValueConfig{})
	put(t, v, "k", "a")
	broken := errors.New("the handler is broken")
	if err := v.Watch(t.Context(), ">", func(context.Context, view.Change[*text]) error { return broken }, nil); !errors.Is(err, broken) {
		t.Errorf("watch returned %v", err)
	}
}

func TestWhatChangedWhileTheLineWasCutIsSeenAfterwards(t *testing.T) {
	t.Parallel()
	server, v := start(t, jetstream.KeyValueConfig{})
	put(t, v, "deleted", "1")
	put(t, v, "changed", "1")
	put(t, v, "purged", "1")
	put(t, v, "kept", "1")
	js, line := server.ConnectOver()
	w := watch(t, open(t, js), ">")
	w.waitReady()
	line.Cut()
	remove(t, v, "deleted")
	put(t, v, "changed", "2")
	put(t, v, "new", "1")
	// Not even the deletion is left of this one.
	kv, err := server.Connect().KeyValue(t.Context(), bucket)
	if err != nil {
		t.Fatal(err)
	}
	remove(t, v, "purged")
	if err := kv.PurgeDeletes(t.Context(), jetstream.DeleteMarkersOlderThan(-1)); err != nil {
		t.Fatal(err)
	}
	before := len(w.history())
	line.Mend()
	w.waitFor(map[string]string{"changed": "2", "kept": "1", "new": "1"})
	for _, told := range w.history()[before:] {
		if told == "kept=1" {
			t.Error("what had not changed was told again")
		}
	}
	put(t, v, "later", "1")
	w.waitFor(map[string]string{"changed": "2", "kept": "1", "new": "1", "later": "1"})
}

func TestWatchSurvivesARestartOfTheServer(t *testing.T) {
	t.Parallel()
	for name, storage := range map[string]jetstream.StorageType{"on disk": jetstream.FileStorage, "in memory": jetstream.MemoryStorage} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, v := start(t, jetstream.KeyValueConfig{Storage: storage})
			put(t, v, "a", "1")
			w := watch(t, v, ">")
			w.waitReady()
			server.Down()
			server.Up()
			server.Bucket(server.Connect(), jetstream.KeyValueConfig{Bucket: bucket, Storage: storage})
			js := server.Connect()
			again := open(t, js)
			put(t, again, "b", "1")
			want := map[string]string{"a": "1", "b": "1"}
			if storage == jetstream.MemoryStorage {
				want = map[string]string{"b": "1"}
			}
			w.waitFor(want)
		})
	}
}

func TestAWatchSeesWhatExpires(t *testing.T) {
	t.Parallel()
	_, v := start(t, jetstream.KeyValueConfig{TTL: time.Second, LimitMarkerTTL: time.Minute})
	w := watch(t, v, ">")
	w.waitReady()
	put(t, v, "n1", "here")
	w.waitFor(map[string]string{"n1": "here"})
	w.waitFor(map[string]string{})
}

func TestWatchersAgreeWithTheBucketWhileManyWrite(t *testing.T) {
	t.Parallel()
	server, v := start(t, jetstream.KeyValueConfig{LimitMarkerTTL: time.Minute})
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for n := range 3 {
		writers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				key := fmt.Sprintf("k%d.%d", n, i%7)
				if i%5 == 4 {
					_, _ = v.Delete(t.Context(), key)
				} else {
					_, _ = v.Put(t.Context(), key, wrapperspb.String(fmt.Sprint(i)))
				}
			}
		})
	}
	var watchers []*watching
	for range 4 {
		js, line := server.ConnectOver()
		w := watch(t, open(t, js), ">")
		w.waitReady()
		line.Cut()
		line.Mend()
		watchers = append(watchers, w)
	}
	close(stop)
	writers.Wait()
	all, err := v.Snapshot(t.Context(), ">")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, e := range all {
		want[e.Key] = e.Value.GetValue()
	}
	for _, w := range watchers {
		w.waitFor(want)
	}
}
