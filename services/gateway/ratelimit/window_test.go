package ratelimit

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAWindowIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	var w window
	for _, s := range []slot{{17, 1}, {17, 2}, {18, 1}, {616, 1 << 40}} {
		w.add(s.at, s.count)
	}
	got, err := decode(w.encode())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(w, got, cmp.AllowUnexported(window{}, slot{})); diff != "" {
		t.Error(diff)
	}
	w.forget(618)
	if len(w.used) != 2 || w.sum != 1+1<<40 {
		t.Errorf("left: %+v", w)
	}
}

func FuzzDecode(f *testing.F) {
	var w window
	w.add(12345, 3)
	w.add(12346, 1)
	f.Add(w.encode())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 1})
	f.Add([]byte("\x000\x000"))
	f.Fuzz(func(t *testing.T, text []byte) {
		w, err := decode(text)
		if err != nil {
			return
		}
		var sum uint64
		before := int64(-1)
		for _, s := range w.used {
			if s.at <= before || s.count == 0 {
				t.Fatalf("out of order: %+v", w)
			}
			before, sum = s.at, sum+s.count
		}
		if sum != w.sum {
			t.Fatalf("the sum of %+v is %d", w, sum)
		}
		w.forget(before + 5)
		if w.add(before+1, 1); w.sum == 0 {
			t.Fatal("nothing is counted")
		}
	})
}
