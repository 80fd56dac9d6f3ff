package requests

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	appsv1 "github.com/slipway-paas/slipway/gen/slipway/apps/v1"
)

// Message is the entry as the public API says it.
func (e Entry) Message() *appsv1.FollowAccessLogResponse {
	return &appsv1.FollowAccessLogResponse{
		Time: timestamppb.New(e.GetTime().AsTime().Truncate(time.Millisecond)), Edge: e.Edge, Host: e.GetHost(), Method: e.GetMethod(), Path: e.GetPath(),
		Protocol: e.GetProtocol(), Status: e.GetStatus(), BytesIn: float64(e.GetBytesIn()), BytesOut: float64(e.GetBytesOut()),
		DurationMs: milliseconds(e.GetDuration()), ConnectMs: maybe(e.GetConnect()), ServiceMs: maybe(e.GetService()),
		InstanceId: text(e.GetInstanceId()), Upstream: text(e.GetUpstream()), Client: e.GetClient(), UserAgent: e.GetUserAgent(),
		RefererHost: e.GetRefererHost(), RequestId: e.GetRequestId(), TraceId: e.GetTraceId(), Tls: text(e.GetTls()), Page: text(e.GetPage()),
		Dropped: uint32(min(e.Dropped, 1<<32-1)),
	}
}

// Line is the entry as one line of text, after that of Heroku's router.
func (e Entry) Line() string {
	at := e.GetTime().AsTime().UTC().Format("2006-01-02T15:04:05.000Z")
	var b strings.Builder
	if e.Dropped > 0 {
		fmt.Fprintf(&b, "%s router: dropped=%d: so many requests before this are not logged\n", at, e.Dropped)
	}
	b.WriteString(at + " router")
	if id := e.GetInstanceId(); id != "" {
		// An id begins with the time; its end tells instances apart.
		fmt.Fprintf(&b, "[web.%s]", id[max(0, len(id)-8):])
	}
	fmt.Fprintf(&b, ": method=%s path=%s host=%s request_id=%s", value(e.GetMethod()), strconv.Quote(e.GetPath()), value(e.GetHost()), value(e.GetRequestId()))
	for _, f := range []struct{ name, value string }{
		{"trace_id", e.GetTraceId()}, {"client", e.GetClient()}, {"upstream", e.GetUpstream()}, {"connect", rounded(e.GetConnect())}, {"service", rounded(e.GetService())},
	} {
		if f.value != "" {
			b.WriteString(" " + f.name + "=" + value(f.value))
		}
	}
	fmt.Fprintf(&b, " duration=%s status=%d bytes=%d protocol=%s", rounded(e.GetDuration()), e.GetStatus(), e.GetBytesOut(), protocol(e.GetProtocol()))
	if e.GetTls() != "" {
		b.WriteString(" tls=" + value(e.GetTls()))
	}
	if e.GetPage() != "" {
		b.WriteString(" page=" + value(e.GetPage()))
	}
	return b.String()
}

// value is as it is, unless it could be read as more than one field.
func value(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '"' || r == '=' || r > '~' }) {
		return strconv.Quote(s)
	}
	return s
}

func protocol(p string) string {
	switch p {
	case "HTTP/1.1":
		return "h1"
	case "HTTP/2.0":
		return "h2"
	case "HTTP/3.0":
		return "h3"
	}
	return value(p)
}

func rounded(d *durationpb.Duration) string {
	if d == nil {
		return ""
	}
	return strconv.FormatInt(d.AsDuration().Round(time.Millisecond).Milliseconds(), 10) + "ms"
}

func milliseconds(d *durationpb.Duration) float64 {
	return float64(d.AsDuration().Microseconds()) / 1e3
}

func maybe(d *durationpb.Duration) *wrapperspb.DoubleValue {
	if d == nil {
		return nil
	}
	return wrapperspb.Double(milliseconds(d))
}

func text(s string) *wrapperspb.StringValue {
	if s == "" {
		return nil
	}
	return wrapperspb.String(s)
}
