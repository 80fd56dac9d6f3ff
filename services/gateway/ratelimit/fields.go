package ratelimit

import (
	"net/http"
	"strconv"
	"time"
)

// Fields of draft-ietf-httpapi-ratelimit-headers-10.
const (
	FieldLimit  = "Ratelimit"
	FieldPolicy = "Ratelimit-Policy"
)

// Write says in an answer's header what is left, as
// draft-ietf-httpapi-ratelimit-headers-10 has it: quotas in requests, times in whole
// seconds. Without a quota it says nothing.
func (v Verdict) Write(h http.Header) {
	if v.Policy.Quota == 0 {
		return
	}
	policy, limit := v.Fields()
	h[FieldPolicy] = []string{policy}
	h[FieldLimit] = []string{limit}
}

// Fields are the values of RateLimit-Policy and RateLimit.
func (v Verdict) Fields() (policy, limit string) {
	var room [64]byte
	b := append(room[:0], '"')
	b = append(b, v.Policy.Name...)
	b = append(b, `";q=`...)
	b = strconv.AppendUint(b, v.Policy.Quota, 10)
	b = append(b, `;w=`...)
	b = strconv.AppendInt(b, seconds(v.Policy.Window), 10)
	policy = string(b)
	b = append(room[:0], '"')
	b = append(b, v.Policy.Name...)
	b = append(b, `";r=`...)
	b = strconv.AppendUint(b, v.Remaining, 10)
	b = append(b, `;t=`...)
	b = strconv.AppendInt(b, seconds(v.Reset), 10)
	return policy, string(b)
}

// RetryAfter is how long to wait after a refusal, in whole seconds, at least one.
func (v Verdict) RetryAfter() time.Duration {
	return time.Duration(max(1, seconds(v.Reset))) * time.Second
}

// seconds rounds up: who waits that long has waited long enough.
func seconds(d time.Duration) int64 { return max(0, int64((d+time.Second-1)/time.Second)) }
