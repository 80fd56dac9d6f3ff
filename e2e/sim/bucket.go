package sim

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/slipway-paas/slipway/libs/view"
)

// bucket is a key-value bucket as JetStream keeps one: every change has a revision,
// and a watcher has each key's last value, then the changes.
type bucket[T proto.Message] struct {
	name string
	newT func() T
	life time.Duration // of an entry; 0 for ever

	mu      sync.Mutex
	changes []stored
	entries map[string]stored
	changed chan struct{} // closed and replaced by each change
}

type stored struct {
	key      string
	data     []byte
	deleted  bool
	revision uint64
	at       time.Time
}

func newBucket[T proto.Message](name string, newT func() T, life time.Duration) *bucket[T] {
	return &bucket[T]{name: name, newT: newT, life: life, entries: map[string]stored{}, changed: make(chan struct{})}
}

func (b *bucket[T]) write(key string, value *T) (uint64, error) {
	c := stored{key: key, deleted: value == nil, at: time.Now()}
	if value != nil {
		data, err := proto.Marshal(*value)
		if err != nil {
			return 0, err
		}
		c.data = data
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c.revision = uint64(len(b.changes)) + 1
	b.changes = append(b.changes, c)
	if c.deleted {
		delete(b.entries, key)
	} else {
		b.entries[key] = c
	}
	close(b.changed)
	b.changed = make(chan struct{})
	return c.revision, nil
}

func (b *bucket[T]) value(c stored) view.Entry[T] {
	v := b.newT()
	if err := proto.Unmarshal(c.data, v); err != nil {
		panic(fmt.Sprintf("%s holds what it was not given: %v", b.name, err))
	}
	return view.Entry[T]{Key: c.key, Value: v, Revision: c.revision}
}

// all are the entries that match, by key.
func (b *bucket[T]) all(filter string) []view.Entry[T] {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []view.Entry[T]
	for _, key := range slices.Sorted(maps.Keys(b.entries)) {
		if matches(filter, key) {
			out = append(out, b.value(b.entries[key]))
		}
	}
	return out
}

func matches(filter, key string) bool {
	return filter == ">" || strings.HasPrefix(key, strings.TrimSuffix(filter, ">"))
}

// expire deletes what has not been written for too long.
func (b *bucket[T]) expire(now time.Time) {
	for _, key := range b.keys() {
		b.mu.Lock()
		over := now.Sub(b.entries[key].at) >= b.life
		b.mu.Unlock()
		if over {
			_, _ = b.write(key, nil)
		}
	}
}

func (b *bucket[T]) keys() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.entries))
}

func (b *bucket[T]) nextExpiry() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	var next time.Time
	for _, e := range b.entries {
		if at := e.at.Add(b.life); next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}

// reach is a bucket as one part reaches it.
type reach[T proto.Message] struct {
	p *proc
	b *bucket[T]
	// puts is what kind of call a Put is.
	puts kind
	// opened, unless nil, is told the revision at which a watch begins.
	opened *uint64
}

func (r reach[T]) short(key string) string {
	return r.b.name + " " + r.p.w.shortKey(key)
}

func (r reach[T]) Put(ctx context.Context, key string, value T) (revision uint64, err error) {
	err = r.p.do(ctx, r.puts, r.short(key), func(verdict) error {
		revision, err = r.b.write(key, &value)
		return err
	})
	return revision, err
}

func (r reach[T]) PutIf(ctx context.Context, key string, value T, last uint64) (revision uint64, err error) {
	err = r.p.do(ctx, kindPut, r.short(key), func(verdict) error {
		r.b.mu.Lock()
		have := r.b.entries[key].revision
		r.b.mu.Unlock()
		if have != last {
			return view.ErrConflict
		}
		revision, err = r.b.write(key, &value)
		return err
	})
	return revision, err
}

func (r reach[T]) Delete(ctx context.Context, key string) (revision uint64, err error) {
	err = r.p.do(ctx, kindPut, r.short(key)+" deleted", func(verdict) error {
		if planted == plantKeepView {
			return nil
		}
		revision, err = r.b.write(key, nil)
		return err
	})
	return revision, err
}

func (r reach[T]) Get(ctx context.Context, key string) (e view.Entry[T], there bool, err error) {
	err = r.p.do(ctx, kindRead, r.short(key), func(verdict) error {
		r.b.mu.Lock()
		defer r.b.mu.Unlock()
		var c stored
		if c, there = r.b.entries[key]; there {
			e = r.b.value(c)
		}
		return nil
	})
	return e, there, err
}

func (r reach[T]) Snapshot(ctx context.Context, filter string) (all []view.Entry[T], err error) {
	err = r.p.do(ctx, kindRead, r.b.name, func(verdict) error {
		all = r.b.all(filter)
		return nil
	})
	return all, err
}

func (r reach[T]) Watch(ctx context.Context, filter string, handle func(context.Context, view.Change[T]) error, ready func()) error {
	var all []view.Entry[T]
	var position int
	// A view asks again until it is told.
	for {
		err := r.p.do(ctx, kindRead, "watch "+r.b.name, func(verdict) error {
			all = r.b.all(filter)
			r.b.mu.Lock()
			defer r.b.mu.Unlock()
			position = len(r.b.changes)
			if r.opened != nil {
				*r.opened = uint64(position)
			}
			return nil
		})
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			break
		}
		if err == errDead {
			return err
		}
	}
	for _, e := range all {
		if err := handle(ctx, view.Change[T]{Entry: e}); err != nil {
			return err
		}
	}
	if ready != nil {
		ready()
	}
	for {
		waiting, more := r.b.behind(position, filter)
		if len(waiting) == 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-more:
				continue
			}
		}
		var some []stored
		if err := r.p.do(ctx, kindWatch, r.short(waiting[0].key), func(v verdict) error {
			waiting, _ = r.b.behind(position, filter)
			some = waiting[:1]
			if v.together {
				some = lastOfEach(waiting)
			}
			return nil
		}); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		for _, c := range some {
			position = max(position, int(c.revision))
			change := view.Change[T]{Entry: view.Entry[T]{Key: c.key, Revision: c.revision}, Deleted: c.deleted}
			if !c.deleted {
				change.Entry = r.b.value(c)
			}
			if err := handle(ctx, change); err != nil {
				return err
			}
		}
	}
}

func (b *bucket[T]) behind(position int, filter string) ([]stored, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []stored
	for _, c := range b.changes[position:] {
		if matches(filter, c.key) {
			out = append(out, c)
		}
	}
	return out, b.changed
}

// lastOfEach is what a watcher gets that was away: of each key the last change.
func lastOfEach(all []stored) []stored {
	var out []stored
	for i, c := range all {
		if !slices.ContainsFunc(all[i+1:], func(o stored) bool { return o.key == c.key }) {
			out = append(out, c)
		}
	}
	return out
}
