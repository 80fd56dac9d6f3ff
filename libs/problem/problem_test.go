package problem_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/slipway-paas/slipway/libs/problem"
)

func TestAProblemCrossesGRPCWhole(t *testing.T) {
	t.Parallel()
	for _, p := range []*problem.Error{
		problem.Malformed("m"), problem.Unauthorized("m"), problem.Forbidden("m"), problem.NotFound("m"), problem.Conflict("m"),
		problem.TooLarge("m"), problem.InvalidState("m"), problem.Limit("m", 3*time.Second), problem.Unavailable("m", time.Second),
		problem.Validation([]problem.Field{{Field: "a", Message: "x"}, {Field: "b", Message: "y"}}),
	} {
		// A client sees the status only, as the wire carries it.
		over := status.FromProto(p.GRPCStatus().Proto()).Err()
		if got := problem.From(fmt.Errorf("calling: %w", over)); p.Fields == nil && (got.Status != p.Status || got.Code != p.Code || got.RetryAfter != p.RetryAfter) ||
			!reflect.DeepEqual(got.Fields, p.Fields) {
			t.Errorf("%s came out as %+v", p.Code, got)
		}
	}
}

func TestTheInsidesOfOtherErrorsStayInside(t *testing.T) {
	t.Parallel()
	for _, err := range []error{errors.New("password=hunter2"), status.Error(codes.Internal, "password=hunter2"), status.Error(codes.Unknown, "password=hunter2")} {
		p := problem.From(err)
		if p.Status != http.StatusInternalServerError || p.Message == "" || p.Message == err.Error() {
			t.Errorf("%v came out as %+v", err, p)
		}
	}
}

func TestTheHTTPAnswerHasEveryMember(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	problem.Limit("Too many.", 1500*time.Millisecond).Write(w)
	if w.Code != 429 || w.Header().Get("Content-Type") != "application/problem+json" || w.Header().Get("Retry-After") != "2" {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	var body map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"type": "about:blank", "title": "Too Many Requests", "status": 429.0, "detail": "Too many.",
		"error": "Too many.", "message": "Too many.", "code": "limit_reached"}
	if !reflect.DeepEqual(body, want) {
		t.Fatalf("body %v, want %v", body, want)
	}
}
