// Package problem is the one error shape of every surface: RFC 9457 problem
// details with a stable code, a sentence for people and, for validation, all
// fields at fault. It crosses gRPC as a status with details and comes out of the
// gateway as application/problem+json.
package problem

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Codes that clients may rely on.
const (
	CodeMalformed    = "malformed_request"
	CodeUnauthorized = "unauthorized"
	CodeForbidden    = "forbidden"
	CodeNotFound     = "not_found"
	CodeConflict     = "conflict"
	CodeTooLarge     = "body_too_large"
	CodeValidation   = "validation_failed"
	CodeInvalidState = "invalid_state"
	CodeLimit        = "limit_reached"
	CodeUnavailable  = "unavailable"
	CodeInternal     = "internal"
)

const domain = "slipway"

// Field is one field at fault and what to do about it.
type Field struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

// Error is a problem. Message is a sentence for people: what happened, why, what to do.
type Error struct {
	Status     int
	Code       string
	Message    string
	Fields     []Field
	RetryAfter time.Duration
}

func (e *Error) Error() string { return e.Message }

// Malformed is 400: the request cannot be read.
func Malformed(message string) *Error {
	return &Error{Status: http.StatusBadRequest, Code: CodeMalformed, Message: message}
}

// Unauthorized is 401: no token, or not a valid one.
func Unauthorized(message string) *Error {
	return &Error{Status: http.StatusUnauthorized, Code: CodeUnauthorized, Message: message}
}

// Forbidden is 403: known, and not allowed.
func Forbidden(message string) *Error {
	return &Error{Status: http.StatusForbidden, Code: CodeForbidden, Message: message}
}

// NotFound is 404.
func NotFound(message string) *Error {
	return &Error{Status: http.StatusNotFound, Code: CodeNotFound, Message: message}
}

// Conflict is 409: others were faster, trying again may help.
func Conflict(message string) *Error {
	return &Error{Status: http.StatusConflict, Code: CodeConflict, Message: message}
}

// TooLarge is 413.
func TooLarge(message string) *Error {
	return &Error{Status: http.StatusRequestEntityTooLarge, Code: CodeTooLarge, Message: message}
}

// Validation is 422 with all fields at fault.
func Validation(fields []Field) *Error {
	parts := make([]string, len(fields))
	for i, f := range fields {
		parts[i] = f.Field + ": " + f.Message
	}
	return &Error{Status: http.StatusUnprocessableEntity, Code: CodeValidation, Message: strings.Join(parts, "; "), Fields: fields}
}

// InvalidState is 422: the command is fine, the state forbids it.
func InvalidState(message string) *Error {
	return &Error{Status: http.StatusUnprocessableEntity, Code: CodeInvalidState, Message: message}
}

// Limit is 429 (RFC 6585): a limit is reached. retryAfter is when asking again may help;
// 0, which sends no Retry-After (RFC 9110, 10.2.3), when time alone does not help.
func Limit(message string, retryAfter time.Duration) *Error {
	return &Error{Status: http.StatusTooManyRequests, Code: CodeLimit, Message: message, RetryAfter: retryAfter}
}

// Unavailable is 503: a part is missing, which the message names.
func Unavailable(message string, retryAfter time.Duration) *Error {
	return &Error{Status: http.StatusServiceUnavailable, Code: CodeUnavailable, Message: message, RetryAfter: retryAfter}
}

var grpcCodes = map[int]codes.Code{
	http.StatusBadRequest:            codes.InvalidArgument,
	http.StatusUnauthorized:          codes.Unauthenticated,
	http.StatusForbidden:             codes.PermissionDenied,
	http.StatusNotFound:              codes.NotFound,
	http.StatusConflict:              codes.Aborted,
	http.StatusRequestEntityTooLarge: codes.ResourceExhausted,
	http.StatusTooManyRequests:       codes.ResourceExhausted,
	http.StatusServiceUnavailable:    codes.Unavailable,
}

// GRPCStatus lets a gRPC server send the error as it is.
func (e *Error) GRPCStatus() *status.Status {
	code, ok := grpcCodes[e.Status]
	switch {
	case e.Status == http.StatusUnprocessableEntity:
		code = codes.InvalidArgument
	case !ok:
		code = codes.Internal
	}
	switch e.Code {
	case CodeValidation:
		code = codes.InvalidArgument
	case CodeInvalidState:
		code = codes.FailedPrecondition
	}
	st := status.New(code, e.Message)
	info := &errdetails.ErrorInfo{Reason: e.Code, Domain: domain, Metadata: map[string]string{"status": strconv.Itoa(e.Status)}}
	bad := &errdetails.BadRequest{}
	for _, f := range e.Fields {
		bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: f.Field, Description: f.Message})
	}
	retry := &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)}
	full, err := st.WithDetails(info, bad, retry)
	if err != nil {
		return st
	}
	return full
}

// From turns any error into a problem: one of ours as it was, over gRPC too;
// anything else becomes a 500 or the nearest code, without its inner text.
func From(err error) *Error {
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	st, ok := status.FromError(err)
	if !ok {
		return &Error{Status: http.StatusInternalServerError, Code: CodeInternal, Message: "Something went wrong on our side; it has been logged."}
	}
	e := &Error{}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.Domain != domain {
				continue
			}
			e.Code = d.Reason
			e.Status, _ = strconv.Atoi(d.Metadata["status"])
		case *errdetails.BadRequest:
			for _, v := range d.FieldViolations {
				e.Fields = append(e.Fields, Field{Field: v.Field, Message: v.Description})
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = d.RetryDelay.AsDuration()
		}
	}
	if e.Status != 0 {
		e.Message = st.Message()
		return e
	}
	return fromCode(st)
}

func fromCode(st *status.Status) *Error {
	switch st.Code() {
	case codes.InvalidArgument:
		return Malformed(st.Message())
	case codes.Unauthenticated:
		return Unauthorized(st.Message())
	case codes.PermissionDenied:
		return Forbidden(st.Message())
	case codes.NotFound:
		return NotFound(st.Message())
	case codes.Unavailable, codes.DeadlineExceeded:
		return Unavailable("A part of the platform is not answering; try again in a moment.", time.Second)
	case codes.Canceled:
		return &Error{Status: 499, Code: "canceled", Message: "The request was canceled."}
	case codes.Unimplemented:
		return NotFound("There is no such method.")
	default:
		return &Error{Status: http.StatusInternalServerError, Code: CodeInternal, Message: "Something went wrong on our side; it has been logged."}
	}
}

// body is RFC 9457's members plus ours.
type body struct {
	Type    string  `json:"type"`
	Title   string  `json:"title"`
	Status  int     `json:"status"`
	Detail  string  `json:"detail"`
	Error   string  `json:"error"`
	Message string  `json:"message"`
	Code    string  `json:"code"`
	Fields  []Field `json:"fields,omitempty"`
}

// Write answers an HTTP request with the problem.
func (e *Error) Write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(max(1, int(e.RetryAfter.Round(time.Second)/time.Second))))
	}
	if e.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="slipway"`)
	}
	title := http.StatusText(e.Status)
	if title == "" {
		title = "Request canceled"
	}
	w.WriteHeader(e.Status)
	// The status line is out: a failed write means the client is gone.
	_ = json.NewEncoder(w).Encode(body{
		Type: "about:blank", Title: title, Status: e.Status, Detail: e.Message,
		Error: e.Message, Message: e.Message, Code: e.Code, Fields: e.Fields,
	})
}
