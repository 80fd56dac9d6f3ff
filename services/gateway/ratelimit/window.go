package ratelimit

import (
	"encoding/binary"
	"errors"
	"math"
	"time"
)

// slots is into how many parts a window is cut: what it counts is forgotten one part
// at a time, at most a six-hundredth of the window late.
const slots = 600

// slot is what was counted in one part of time.
type slot struct {
	at    int64 // since the epoch, in parts
	count uint64
}

// window is what was counted in the last slots+1 parts, oldest first. So it holds all
// of any span of time as long as the policy's window that ends now.
type window struct {
	used []slot
	sum  uint64
}

// forget drops what is older than a window before now.
func (w *window) forget(now int64) {
	old := 0
	for old < len(w.used) && w.used[old].at < now-slots {
		w.sum -= w.used[old].count
		old++
	}
	if old > 0 {
		w.used = w.used[:copy(w.used, w.used[old:])]
	}
}

// add counts n at a part. One that is older than the newest, by a clock that is
// behind, counts as the newest.
func (w *window) add(at int64, n uint64) {
	if n = min(n, math.MaxUint64-w.sum); n == 0 {
		return
	}
	w.sum += n
	if last := len(w.used) - 1; last >= 0 && at <= w.used[last].at {
		w.used[last].count += n
		return
	}
	w.used = append(w.used, slot{at, n})
}

// undo takes back one of the newest.
func (w *window) undo() {
	last := len(w.used) - 1
	if last < 0 {
		return
	}
	w.sum--
	if w.used[last].count--; w.used[last].count == 0 {
		w.used = w.used[:last]
	}
}

// freed is the part in which fewer than quota are left of what is counted now, when
// nothing is added.
func (w *window) freed(quota uint64, now int64) int64 {
	left := w.sum
	for _, s := range w.used {
		if left < quota {
			return now
		}
		left -= s.count
		now = s.at + slots + 1
	}
	return now
}

// merge adds what another window counts.
func (w *window) merge(other window) {
	merged := window{used: make([]slot, 0, len(w.used)+len(other.used))}
	a, b := w.used, other.used
	for len(a) > 0 || len(b) > 0 {
		if len(b) == 0 || len(a) > 0 && a[0].at <= b[0].at {
			merged.add(a[0].at, a[0].count)
			a = a[1:]
		} else {
			merged.add(b[0].at, b[0].count)
			b = b[1:]
		}
	}
	*w = merged
}

func (w *window) clear() { w.used, w.sum = w.used[:0], 0 }

// errBroken is for what encode has not written.
var errBroken = errors.New("what is kept of a limit cannot be read")

// encode writes the first part and then, for each, how much later it is and its count.
func (w *window) encode() []byte {
	out := make([]byte, 0, 10+4*len(w.used))
	var before int64
	for _, s := range w.used {
		out = binary.AppendUvarint(out, uint64(s.at-before))
		out = binary.AppendUvarint(out, s.count)
		before = s.at
	}
	return out
}

func decode(text []byte) (window, error) {
	var w window
	var before int64
	for len(text) > 0 {
		later, n := binary.Uvarint(text)
		if n <= 0 {
			return window{}, errBroken
		}
		count, m := binary.Uvarint(text[n:])
		if m <= 0 || count == 0 || later > math.MaxInt64-uint64(before) || later == 0 && len(w.used) > 0 ||
			count > math.MaxUint64-w.sum || len(w.used) > slots {
			return window{}, errBroken
		}
		text = text[n+m:]
		before += int64(later)
		w.used = append(w.used, slot{before, count})
		w.sum += count
	}
	return w, nil
}

// part is the length of one slot.
func part(w time.Duration) time.Duration { return max(1, w/slots) }
