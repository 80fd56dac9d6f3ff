// Package sender makes one attempt at one delivery: it signs it as Standard Webhooks
// has it and says how the endpoint answered.
package sender

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/slipway-paas/slipway/services/webhooks/guard"
)

const (
	// timeout bounds one attempt, Standard Webhooks recommends 15 to 30 s.
	timeout = 15 * time.Second
	// maxAnswer is how much of an answer is read, in bytes; none of it is kept.
	maxAnswer    = 4 << 10
	secretPrefix = "whsec_"
	secretBytes  = 32
)

// NewSecret makes a secret that endpoints check signatures with.
func NewSecret() string {
	var raw [secretBytes]byte
	// crypto/rand.Read never fails.
	_, _ = rand.Read(raw[:])
	return secretPrefix + base64.StdEncoding.EncodeToString(raw[:])
}

// Message is what is sent.
type Message struct {
	ID, URL string
	// Secrets sign, each by itself; the newest first.
	Secrets []string
	Body    []byte
}

// Sender sends. It may be used concurrently.
type Sender struct {
	client *http.Client
	agent  string
}

// New sends to where the guard lets it, as Slipway of that version.
func New(g guard.Guard, version string) *Sender {
	return &Sender{client: g.Client(timeout), agent: "Slipway-Webhooks/" + version}
}

// Answer is how an endpoint took a message.
type Answer struct {
	// Status is HTTP's; 0 when there was no answer.
	Status int
	// Why says in words, without what the endpoint said, why the message was not taken.
	Why string
	// RetryAfter is how long a busy endpoint asks to be left alone (RFC 9110, section
	// 10.2.3, with 429 or 503); 0 when it does not ask.
	RetryAfter time.Duration
}

// Send makes one attempt. An error is ours.
func (s *Sender) Send(ctx context.Context, m Message, now time.Time) (Answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.URL, bytes.NewReader(m.Body))
	if err != nil {
		return Answer{Why: "The URL is not usable."}, nil
	}
	var signatures []string
	for _, secret := range m.Secrets {
		signer, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			// The error may hold the secret.
			return Answer{}, errors.New("a webhook's secret cannot be read")
		}
		signature, err := signer.Sign(m.ID, now, m.Body)
		if err != nil {
			return Answer{}, fmt.Errorf("sign %s: %w", m.ID, err)
		}
		signatures = append(signatures, signature)
	}
	req.Header.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
	req.Header.Set("User-Agent", s.agent)
	req.Header.Set(standardwebhooks.HeaderWebhookID, m.ID)
	req.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	req.Header.Set(standardwebhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	res, err := s.client.Do(req)
	if err != nil {
		return Answer{Why: because(err)}, nil
	}
	defer res.Body.Close()
	// What it says is nobody's business; what does not come in time is no answer.
	if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer)); err != nil {
		return Answer{Why: because(err)}, nil
	}
	answer := Answer{Status: res.StatusCode}
	switch {
	case res.StatusCode >= 300 && res.StatusCode < 400:
		answer.Why = "It answered with a redirect, which is not followed; give the URL that it leads to."
	case res.StatusCode == http.StatusTooManyRequests, res.StatusCode == http.StatusServiceUnavailable:
		answer.RetryAfter = retryAfter(res.Header.Get("Retry-After"), now)
		fallthrough
	case res.StatusCode >= 300:
		answer.Why = fmt.Sprintf("It answered %d.", res.StatusCode)
	}
	return answer, nil
}

// retryAfter reads seconds or a date; what is neither, or past, asks for nothing.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(value); err == nil {
		return max(0, date.Sub(now))
	}
	return 0
}

// because says why there was no answer, and nothing of what is inside our network.
func because(err error) string {
	var dns *net.DNSError
	var timedOut interface{ Timeout() bool }
	switch {
	case errors.Is(err, guard.ErrRefused):
		return "Its name leads to an address that is not public; nothing was sent."
	case errors.As(err, &dns):
		return "Its name could not be resolved."
	case errors.As(err, &timedOut) && timedOut.Timeout():
		return "It did not answer in time."
	}
	return "It could not be reached, or broke off; its TLS certificate may not be valid."
}
