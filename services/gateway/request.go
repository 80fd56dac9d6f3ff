package gateway

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/slipway-paas/slipway/libs/problem"
)

// maxBody bounds a request's body, in bytes.
const maxBody = 1 << 20

const requestIDHeader = "X-Request-Id"

type requestIDKey struct{}

// requestID is the id of the request that ctx belongs to; empty for none.
func requestID(ctx context.Context) string {
	if id, ok := ctx.Value(requestIDKey{}).(string); ok {
		return id
	}
	if sent := metadata.ValueFromIncomingContext(ctx, requestIDHeader); len(sent) > 0 && usableID(sent[0]) {
		return sent[0]
	}
	return ""
}

// idOf is the request id that the client gave, when it is usable, or a new one.
func idOf(h http.Header) string {
	if sent := h[requestIDHeader]; len(sent) == 1 && usableID(sent[0]) {
		return sent[0]
	}
	// Ids only tell log lines apart; they need not be hard to guess.
	var id [16]byte
	text := strconv.AppendUint(id[:0], rand.Uint64()|1<<63, 16)
	return string(text)
}

// usableID keeps what goes into logs and headers short and plain.
func usableID(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

// readBody reads the whole body, bounded, and checks that it is what it says.
// Errors are *problem.Error: 400, 413, 415.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	tooLarge := problem.TooLarge("The body is larger than 1 MiB; send less.")
	if r.ContentLength > maxBody {
		return nil, tooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var exceeded *http.MaxBytesError
	switch {
	case errors.As(err, &exceeded):
		return nil, tooLarge
	case err != nil:
		return nil, problem.Malformed("The body could not be read to its end; send it again.")
	case len(body) == 0:
		return nil, nil
	}
	if e := r.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return nil, unsupported("The body is compressed; send it without Content-Encoding.")
	}
	declared := r.Header.Get("Content-Type")
	if declared == "" || declared == curlsOwn {
		return body, nil
	}
	kind, params, err := mime.ParseMediaType(declared)
	if err != nil || kind != "application/json" {
		return nil, unsupported("The body must be JSON; send it with the header Content-Type: application/json.")
	}
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		return nil, unsupported("The body must be in UTF-8; send it with the header Content-Type: application/json.")
	}
	return body, nil
}

// curlsOwn is what curl -d says of a body when it is told nothing. There is no form
// here, and no cookie that a form could abuse, so it is read as the JSON that it is.
const curlsOwn = "application/x-www-form-urlencoded"

func unsupported(message string) *problem.Error {
	return &problem.Error{Status: http.StatusUnsupportedMediaType, Code: "unsupported_media_type", Message: message}
}
