package decider

import (
	"container/list"
	"sync"

	"github.com/slipway-paas/slipway/libs/subjects"
)

// cache keeps the states of the aggregates used last. A nil one keeps nothing.
type cache[S any] struct {
	size  int
	mu    sync.Mutex
	order *list.List // of *cached[S], the last used first
	by    map[subjects.Aggregate]*list.Element
}

type cached[S any] struct {
	aggregate subjects.Aggregate
	at        position[S]
}

func newCache[S any](size int) *cache[S] {
	if size <= 0 {
		return nil
	}
	return &cache[S]{size: size, order: list.New(), by: map[subjects.Aggregate]*list.Element{}}
}

func (c *cache[S]) get(a subjects.Aggregate) (position[S], bool) {
	if c == nil {
		return position[S]{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	element, ok := c.by[a]
	if !ok {
		return position[S]{}, false
	}
	c.order.MoveToFront(element)
	return element.Value.(*cached[S]).at, true
}

// put keeps a state, unless a later one is kept already.
func (c *cache[S]) put(a subjects.Aggregate, at position[S]) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if element, ok := c.by[a]; ok {
		c.order.MoveToFront(element)
		if kept := element.Value.(*cached[S]); kept.at.sequence < at.sequence {
			kept.at = at
		}
		return
	}
	c.by[a] = c.order.PushFront(&cached[S]{aggregate: a, at: at})
	if c.order.Len() > c.size {
		oldest := c.order.Remove(c.order.Back()).(*cached[S])
		delete(c.by, oldest.aggregate)
	}
}
