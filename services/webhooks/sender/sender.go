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

// Send makes one attempt and returns the answer's status, 0 when there was none; why
// says in words, without what the endpoint said, why there was none. An error is ours.
func (s *Sender) Send(ctx context.Context, m Message, now time.Time) (status int, why string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.URL, bytes.NewReader(m.Body))
	if err != nil {
		return 0, "The URL is not usable.", nil
	}
	var signatures []string
	for _, secret := range m.Secrets {
		signer, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			// The error may hold the secret.
			return 0, "", errors.New("a webhook's secret cannot be read")
		}
		signature, err := signer.Sign(m.ID, now, m.Body)
		if err != nil {
			return 0, "", fmt.Errorf("sign %s: %w", m.ID, err)
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
		return 0, because(err), nil
	}
	defer res.Body.Close()
	// What it says is nobody's business; what does not come in time is no answer.
	if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer)); err != nil {
		return 0, because(err), nil
	}
	if res.StatusCode >= 300 && res.StatusCode < 400 {
		return res.StatusCode, "It answered with a redirect, which is not followed; give the URL that it leads to.", nil
	}
	if res.StatusCode >= 300 {
		return res.StatusCode, fmt.Sprintf("It answered %d.", res.StatusCode), nil
	}
	return res.StatusCode, "", nil
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
