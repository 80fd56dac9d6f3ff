package certs

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"go.uber.org/zap/zapcore"
)

// retryAfter reads the Retry-After (RFC 9110, 10.2.3) of a CA's refusals. The ACME client
// keeps it to itself but for a debug line, which this reads on its way to the log.
type retryAfter struct {
	zapcore.Core
	asked *atomic.Pointer[time.Time]
}

const requestLine = "http request"

// Enabled implements zapcore.Core.
func (c *retryAfter) Enabled(zapcore.Level) bool { return true }

// With implements zapcore.Core.
func (c *retryAfter) With(fields []zapcore.Field) zapcore.Core {
	return &retryAfter{Core: c.Core.With(fields), asked: c.asked}
}

// Check implements zapcore.Core.
func (c *retryAfter) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if entry.Message == requestLine {
		return checked.AddCore(entry, c)
	}
	return c.Core.Check(entry, checked)
}

// Write implements zapcore.Core, for requests only.
func (c *retryAfter) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	var status int64
	var header http.Header
	for _, f := range fields {
		switch f.Key {
		case "status_code":
			status = f.Integer
		case "response_headers":
			header, _ = f.Interface.(http.Header)
		}
	}
	if status == http.StatusTooManyRequests || status >= 500 {
		at := retryAt(header.Get("Retry-After"), time.Now())
		c.asked.Store(&at)
	}
	if c.Core.Enabled(entry.Level) {
		return c.Core.Write(entry, fields)
	}
	return nil
}

// retryAt is when it may be tried again; zero when nothing readable is said.
func retryAt(said string, now time.Time) time.Time {
	if seconds, err := strconv.Atoi(said); err == nil && seconds >= 0 && seconds < int(longestWord/time.Second) {
		return now.Add(time.Duration(seconds) * time.Second)
	}
	if at, err := http.ParseTime(said); err == nil {
		return at
	}
	return time.Time{}
}
