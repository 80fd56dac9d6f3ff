package view_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/slipway-paas/slipway/libs/internal/natstest"
	"github.com/slipway-paas/slipway/libs/view"
)

const bucket = "VIEW_test"

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
