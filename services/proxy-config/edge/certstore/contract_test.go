package certstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/slipway-paas/slipway/services/proxy-config/edge/certstore"
)

// What CertMagic's own storage in files does is what Caddy expects; both are held
// against the same.
func TestBothStoragesKeepTheContract(t *testing.T) {
	t.Parallel()
	for name, storage := range map[string]func(*testing.T) certmagic.Storage{
		"files": func(t *testing.T) certmagic.Storage { return &certmagic.FileStorage{Path: t.TempDir()} },
		"NATS":  func(t *testing.T) certmagic.Storage { return newServer(t).edge(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			contract(t, storage(t))
		})
	}
}

const (
	crt = "certificates/ca.example-dir/shop.example/shop.example.crt"
	key = "certificates/ca.example-dir/shop.example/shop.example.key"
	foo = "certificates/ca.example-dir/wildcard_.example.com/wildcard_.example.com.crt"
)

func contract(t *testing.T, s certmagic.Storage) {
	ctx := t.Context()
	store := func(path, value string) {
		t.Helper()
		if err := s.Store(ctx, path, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("what was never stored is not there", func(t *testing.T) {
		if _, err := s.Load(ctx, crt); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("load: %v", err)
		}
		if _, err := s.Stat(ctx, crt); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("stat: %v", err)
		}
		if _, err := s.List(ctx, "certificates", true); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("list: %v", err)
		}
		if s.Exists(ctx, crt) {
			t.Error("it exists")
		}
		if err := s.Delete(ctx, crt); err != nil {
			t.Errorf("delete: %v", err)
		}
	})
	store(crt, "one")
	store(crt, "two")
	store(key, "secret")
	store(foo, "wild")
	t.Run("the last value is loaded", func(t *testing.T) {
		if got, err := s.Load(ctx, crt); err != nil || string(got) != "two" {
			t.Errorf("%q, %v", got, err)
		}
		info, err := s.Stat(ctx, crt)
		if err != nil || info.Key != crt || info.Size != 3 || !info.IsTerminal || time.Since(info.Modified).Abs() > time.Minute {
			t.Errorf("%+v, %v", info, err)
		}
	})
	t.Run("what is above a value is a directory", func(t *testing.T) {
		const dir = "certificates/ca.example-dir"
		if !s.Exists(ctx, dir) || !s.Exists(ctx, crt) || s.Exists(ctx, "certificates/ca.example") {
			t.Error("a prefix is one of whole parts")
		}
		if info, err := s.Stat(ctx, dir); err != nil || info.IsTerminal {
			t.Errorf("%+v, %v", info, err)
		}
	})
	t.Run("a list is of what is right below, or of all below", func(t *testing.T) {
		got, err := s.List(ctx, "certificates/ca.example-dir", false)
		slices.Sort(got)
		if want := []string{"certificates/ca.example-dir/shop.example", "certificates/ca.example-dir/wildcard_.example.com"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("%q, %v", got, err)
		}
		got, err = s.List(ctx, "certificates", true)
		for _, want := range []string{"certificates/ca.example-dir", "certificates/ca.example-dir/shop.example", crt, key, foo} {
			if !slices.Contains(got, want) {
				t.Errorf("%s is not in %q, %v", want, got, err)
			}
		}
		if len(got) != 6 {
			t.Errorf("%q", got)
		}
	})
	t.Run("values may be large and of any bytes", func(t *testing.T) {
		value := bytes.Repeat([]byte{0, 255, '\n'}, 20_000)
		if err := s.Store(ctx, "ocsp/large", value); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Load(ctx, "ocsp/large"); err != nil || !bytes.Equal(got, value) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
	t.Run("one store at a time is whole", func(t *testing.T) {
		var writers sync.WaitGroup
		for i := range 4 {
			writers.Go(func() { store("race", fmt.Sprint(i, i, i, i)) })
		}
		writers.Wait()
		if got, err := s.Load(ctx, "race"); err != nil || len(got) != 7 || got[0] != got[6] {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("a directory is deleted with all in it", func(t *testing.T) {
		if err := s.Delete(ctx, "certificates/ca.example-dir/shop.example"); err != nil {
			t.Fatal(err)
		}
		if s.Exists(ctx, crt) || s.Exists(ctx, key) || !s.Exists(ctx, foo) {
			t.Error("not exactly what was below it is gone")
		}
	})
	t.Run("a lock has one holder", func(t *testing.T) { locks(t, s) })
}

func locks(t *testing.T, s certmagic.Storage) {
	const name = "issue_cert_*.example.com"
	var inside atomic.Int32
	var holders sync.WaitGroup
	for range 4 {
		holders.Go(func() {
			if err := s.Lock(t.Context(), name); err != nil {
				t.Error(err)
				return
			}
			if inside.Add(1) != 1 {
				t.Error("two hold the lock")
			}
			time.Sleep(5 * time.Millisecond)
			inside.Add(-1)
			if err := s.Unlock(t.Context(), name); err != nil {
				t.Error(err)
			}
		})
	}
	holders.Wait()
	if err := s.Lock(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	waiting, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if err := s.Lock(waiting, name); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("who waits for a held lock gets %v", err)
	}
	if try, ok := s.(certmagic.TryLocker); ok {
		if had, err := try.TryLock(t.Context(), name); had || err != nil {
			t.Errorf("a held lock is tried: %v, %v", had, err)
		}
	}
	if err := s.Unlock(t.Context(), name); err != nil {
		t.Error(err)
	}
	if err := s.Unlock(t.Context(), name); err == nil {
		t.Error("a lock that is not held can be given back")
	}
}

var _ certmagic.Storage = (*certstore.Storage)(nil)
