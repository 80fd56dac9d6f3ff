package gateway

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/rpc"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/gateway/authn"
	"github.com/slipway-paas/slipway/services/gateway/idempotency"
)

// anyone owns the answers to those who need no token.
var anyone = subjects.Of(subjects.Platform, "caller", "anyone")

// once has next answer a POST that the caller may repeat: with the same
// Idempotency-Key the answer is the first one's. Its body has been read; next gets
// calls made under an ID that is the same for a repeated request.
func (d *door) once(w http.ResponseWriter, r *http.Request, body []byte, next http.Handler) {
	values := r.Header[idempotency.Header]
	if r.Method != http.MethodPost || len(values) == 0 || d.answers == nil {
		next.ServeHTTP(w, r)
		return
	}
	key, err := idempotency.ParseKey(values)
	if err != nil {
		d.fail(w, r, err)
		return
	}
	answer, replayed, err := d.answers.Do(r.Context(), idempotency.Request{
		Owner: ownerOf(r.Context()), Endpoint: r.Method + " " + r.URL.Path, Key: key,
		Content: append([]byte(r.URL.RawQuery+"\n"), body...),
	}, func(ctx context.Context, command string) idempotency.Answer {
		heard := &recorder{header: http.Header{}}
		next.ServeHTTP(heard, r.WithContext(rpc.WithCommandID(ctx, command)))
		return heard.answer()
	})
	if err != nil {
		d.fail(w, r, err)
		return
	}
	for name, values := range answer.Header {
		w.Header()[name] = values
	}
	if replayed {
		w.Header()[replayedHeader] = []string{"true"}
	}
	w.WriteHeader(answer.Status)
	// The status line is out: a failed write means that the client is gone.
	_, _ = w.Write(answer.Body)
}

// repeatable lets clients repeat a POST of theirs that is no RPC, under the key that they
// name. Who calls is in the request itself: it counts as a part of what was asked.
func (d *door) repeatable(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || len(r.Header[idempotency.Header]) == 0 {
			h.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			d.fail(w, r, problem.TooLarge("The body could not be read to its end, or is larger than 1 MiB."))
			return
		}
		whole := slices.Concat(body, []byte("\n"+strings.Join(r.Header["Authorization"], "\n")+"\n"+strings.Join(r.Header["Cookie"], "\n")))
		r.Body = io.NopCloser(bytes.NewReader(body))
		d.once(w, r, whole, h)
	})
}

// ownerOf is who owns the answers to the caller.
func ownerOf(ctx context.Context) subjects.Aggregate {
	if p := authn.Principal(ctx); p != nil {
		return subjects.Of(p.GetOrgId(), subjects.Operator, p.GetOperatorId())
	}
	return anyone
}

// recorder takes an answer instead of sending it.
type recorder struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(code int) {
	if r.code == 0 {
		r.code = code
	}
}

func (r *recorder) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(b)
}

func (r *recorder) answer() idempotency.Answer {
	r.WriteHeader(http.StatusOK)
	return idempotency.Answer{Status: r.code, Header: r.header, Body: r.body.Bytes()}
}
