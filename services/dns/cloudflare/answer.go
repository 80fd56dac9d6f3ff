package cloudflare

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slipway-paas/slipway/services/dns/zone"
)

// Codes of the API that say more than the HTTP status.
var (
	// An A, AAAA or CNAME record with that host exists; a CNAME; NS; the record; an
	// identical one; one that Workers manages; a tunnel with that name.
	takenCodes = []int{81053, 81054, 81056, 81057, 81058, 81062, 1013}
	// No permission; authentication failed; malformed or wrong token.
	unauthorizedCodes = []int{9109, 10000, 10001, 6003, 6111}
	// No such record; no such tunnel.
	goneCodes = []int{81044, 1003}
)

// maxMessage bounds what of the API's own words goes into ours, in bytes.
const maxMessage = 300

// failure is an answer that is no success.
type failure struct {
	kind     error
	status   int
	messages string
}

func (f *failure) Error() string {
	if f.messages == "" {
		return fmt.Sprintf("%v (HTTP %d)", f.kind, f.status)
	}
	return fmt.Sprintf("%v: %s (HTTP %d)", f.kind, f.messages, f.status)
}

func (f *failure) Unwrap() error { return f.kind }

type envelope struct {
	Success *bool `json:"success"`
	Errors  []struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"errors"`
}

// answer is around every call: it waits for the call's turn and makes a failure of what
// is no success. A failure tells of the API's words and never of the request.
func (c *Client) answer(req *http.Request, next func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	res, err := c.exchange(req, next)
	if c.config.Watch != nil {
		c.config.Watch.Called(result(err))
	}
	return res, err
}

func (c *Client) exchange(req *http.Request, next func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	res, err := next(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", zone.ErrUnavailable, cause(err))
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return nil, fmt.Errorf("%w: the answer broke off: %w", zone.ErrUnavailable, err)
	}
	if len(body) > maxAnswer {
		return nil, fmt.Errorf("%w: the answer is longer than %d bytes", zone.ErrUnavailable, maxAnswer)
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	if failed := c.failed(res, body); failed != nil {
		return nil, failed
	}
	return res, nil
}

// cause is the error without the URL, which says nothing to people.
func cause(err error) error {
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		if _, wraps := inner.(interface{ Timeout() bool }); !wraps {
			return inner
		}
		err = inner
	}
	return err
}

func (c *Client) failed(res *http.Response, body []byte) error {
	var e envelope
	media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	understood := media == "application/json" && json.Unmarshal(body, &e) == nil && e.Success != nil
	if understood && *e.Success && res.StatusCode < http.StatusMultipleChoices {
		return nil
	}
	f := &failure{status: res.StatusCode}
	var messages []string
	var codes []int
	for _, one := range e.Errors {
		codes = append(codes, one.Code)
		messages = append(messages, fmt.Sprintf("%s [%d]", strings.ToValidUTF8(strings.TrimSpace(one.Message), ""), one.Code))
	}
	if f.messages = strings.Join(messages, "; "); len(f.messages) > maxMessage {
		f.messages = strings.ToValidUTF8(f.messages[:maxMessage], "") + "…"
	}
	has := func(known []int) bool {
		return slices.ContainsFunc(codes, func(code int) bool { return slices.Contains(known, code) })
	}
	switch {
	case res.StatusCode == http.StatusTooManyRequests:
		f.kind = zone.ErrLimited
		c.pace.pause(retryAfter(res.Header.Get("Retry-After"), time.Now()))
	case res.StatusCode >= http.StatusInternalServerError, !understood:
		f.kind = zone.ErrUnavailable
		if pause := res.Header.Get("Retry-After"); pause != "" {
			c.pace.pause(retryAfter(pause, time.Now()))
		}
	case has(takenCodes):
		f.kind = zone.ErrTaken
	case has(goneCodes), res.StatusCode == http.StatusNotFound:
		f.kind = zone.ErrGone
	case has(unauthorizedCodes), res.StatusCode == http.StatusUnauthorized, res.StatusCode == http.StatusForbidden:
		f.kind = zone.ErrUnauthorized
	default:
		f.kind = zone.ErrRefused
	}
	return f
}

// retryAfter reads RFC 9110, 10.2.3: seconds or a date.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(text); err == nil && seconds >= 0 {
		return min(time.Duration(seconds)*time.Second, maxPause)
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(0, at.Sub(now)), maxPause)
	}
	return defaultPause
}

func result(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, zone.ErrGone):
		return "gone"
	case errors.Is(err, zone.ErrTaken):
		return "taken"
	case errors.Is(err, zone.ErrLimited):
		return "limited"
	case errors.Is(err, zone.ErrUnauthorized):
		return "unauthorized"
	case errors.Is(err, zone.ErrRefused):
		return "refused"
	}
	return "unavailable"
}

// called makes the error of a call one of package zone's and says what was being done.
func called(doing string, err error) error {
	var f *failure
	switch {
	case err == nil:
		return nil
	case errors.As(err, &f), errors.Is(err, zone.ErrUnavailable), errors.Is(err, zone.ErrLimited):
		return fmt.Errorf("%s: %w", doing, err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w: %w", doing, zone.ErrUnavailable, err)
	}
	// What the library could not make sense of.
	return fmt.Errorf("%s: %w: the answer is not understood: %w", doing, zone.ErrUnavailable, err)
}
