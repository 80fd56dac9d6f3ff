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

	"github.com/slipway-paas/slipway/libs/internal/natstest"
	"github.com/slipway-paas/slipway/libs/view"
)

const (
	bucket   = "VIEW_test"
	deadline = 10 * time.Second
)

type text = wrapperspb.StringValue

func newText() *text { return &text{} }

func start(t *testing.T, cfg jetstream.KeyValueConfig) (*natstest.Server, *view.View[*text]) {
	t.Helper()
	server := natstest.Start(t)
	js := server.Connect()
	cfg.Bucket = bucket
	server.Bucket(js, cfg)
	return server, open(t, js)
}

func open(t *testing.T, js jetstream.JetStream) *view.View[*text] {
	t.Helper()
	v, err := view.Open(t.Context(), js, bucket, newText)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func put(t *testing.T, v *view.View[*text], key, value string) uint64 {
	t.Helper()
	revision, err := v.Put(t.Context(), key, wrapperspb.String(value))
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func remove(t *testing.T, v *view.View[*text], key string) uint64 {
	t.Helper()
	revision, err := v.Delete(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func TestWhatIsPutIsThereUntilItIsDeleted(t *testing.T) {
	t.Parallel()
	_, v := start(t, jetstream.KeyValueConfig{})
	if _, ok, err := v.Get(t.Context(), "n1.i1"); ok || err != nil {
		t.Errorf("an empty bucket answers %v, %v", ok, err)
	}
	first := put(t, v, "n1.i1", "one")
	second := put(t, v, "n1.i1", "two")
	got, ok, err := v.Get(t.Context(), "n1.i1")
	if err != nil || !ok || got.Value.GetValue() != "two" || got.Revision != second || got.Key != "n1.i1" {
		t.Errorf("got %+v, %v, %v", got, ok, err)
	}
	third := remove(t, v, "n1.i1")
	if first != 1 || second != 2 || third != 3 {
		t.Errorf("revisions %d, %d, %d; wanted the stream's 1, 2, 3", first, second, third)
	}
	if _, ok, err := v.Get(t.Context(), "n1.i1"); ok || err != nil {
		t.Errorf("a deleted key answers %v, %v", ok, err)
	}
}

func TestPutIfWritesOnlyOverWhatWasSeen(t *testing.T) {
	t.Parallel()
	_, v := start(t, jetstream.KeyValueConfig{})
	first, err := v.PutIf(t.Context(), "k", wrapperspb.String("a"), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, stale := range []uint64{0, first + 1} {
		if _, err := v.PutIf(t.Context(), "k", wrapperspb.String("b"), stale); !errors.Is(err, view.ErrConflict) {
			t.Errorf("over revision %d: %v, wanted ErrConflict", stale, err)
		}
	}
	if _, err := v.PutIf(t.Context(), "k", wrapperspb.String("c"), first); err != nil {
		t.Error(err)
	}
	remove(t, v, "k")
	if _, err := v.PutIf(t.Context(), "k", wrapperspb.String("d"), 0); err != nil {
		t.Errorf("a deleted key is none: %v", err)
	}
}

func TestKeysThatNATSForbidsAreRefused(t *testing.T) {
	t.Parallel()
	_, v := start(t, jetstream.KeyValueConfig{})
	for _, key := range []string{"", ".a", "a.", "a..b", "a b", "a.*", ">"} {
		if _, err := v.Put(t.Context(), key, newText()); !errors.Is(err, view.ErrInvalidKey) {
			t.Errorf("put %q: %v", key, err)
		}
		if _, err := v.Delete(t.Context(), key); !errors.Is(err, view.ErrInvalidKey) {
			t.Errorf("delete %q: %v", key, err)
		}
		if _, _, err := v.Get(t.Context(), key); !errors.Is(err, view.ErrInvalidKey) {
			t.Errorf("get %q: %v", key, err)
		}
	}
}

func TestOpenWantsTheBucket(t *testing.T) {
	t.Parallel()
	js := natstest.Start(t).Connect()
	if _, err := view.Open(t.Context(), js, "nowhere", newText); err == nil {
		t.Error("a bucket that is not there was opened")
	}
}

func TestSnapshotIsWhatThereIsByKey(t *testing.T) {
	t.Parallel()
	_, v := start(t, jetstream.KeyValueConfig{})
	if all, err := v.Snapshot(t.Context(), ">"); err != nil || len(all) != 0 {
		t.Errorf("an empty bucket: %v, %v", all, err)
	}
	put(t, v, "n2.i1", "other node")
	put(t, v, "n1.i2", "b")
	put(t, v, "n1.i1", "old")
	put(t, v, "n1.i3", "gone")
	put(t, v, "n1.i1", "a")
	remove(t, v, "n1.i3")
	all, err := v.Snapshot(t.Context(), "n1.>")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range all {
		got = append(got, fmt.Sprintf("%s=%s@%d", e.Key, e.Value.GetValue(), e.Revision))
	}
	if diff := cmp.Diff([]string{"n1.i1=a@5", "n1.i2=b@2"}, got); diff != "" {
		t.Errorf("- wanted + got:\n%s", diff)
	}
}

func TestAValueThatCannotBeDecodedStopsNobody(t *testing.T) {
	t.Parallel()
	server, v := start(t, jetstream.KeyValueConfig{})
	kv, err := server.Connect().KeyValue(t.Context(), bucket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(t.Context(), "bad", []byte{0xff, 0xff}); err != nil {
		t.Fatal(err)
	}
	put(t, v, "good", "a")
	all, err := v.Snapshot(t.Context(), ">")
	if err != nil || len(all) != 1 || all[0].Key != "good" || v.Skipped() != 1 {
		t.Errorf("snapshot %v, error %v, skipped %d", all, err, v.Skipped())
	}
	if _, _, err := v.Get(t.Context(), "bad"); err == nil {
		t.Error("the bad value was returned")
	}
}

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
