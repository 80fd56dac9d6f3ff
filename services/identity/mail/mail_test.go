package mail_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/services/identity/mail"
	"github.com/slipway-paas/slipway/services/identity/mail/mailtest"
)

func TestAMailArrives(t *testing.T) {
	t.Parallel()
	server := mailtest.Start(t)
	queue := mail.NewQueue(server.Config(), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { queue.Run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	queue.Put(mail.Message{To: "ada@example.com", Subject: "Grüße", Text: "Your code:\n\n    ABC\n"})
	got := server.Next(t)
	if got.To != "ada@example.com" || got.From != "slipway@example.com" || !strings.Contains(got.Data, "    ABC") {
		t.Errorf("arrived: %+v", got)
	}
}

func TestAHeaderCannotBeInjected(t *testing.T) {
	t.Parallel()
	server := mailtest.Start(t)
	for _, to := range []string{"ada@example.com\r\nBcc: all@example.com", "ada@example.com, all@example.com", ""} {
		if err := mail.Send(t.Context(), server.Config(), mail.Message{To: to, Subject: "x", Text: "x"}); err == nil {
			t.Errorf("%q was sent to", to)
		}
	}
	if err := mail.Send(t.Context(), server.Config(), mail.Message{To: "ada@example.com", Subject: "x\r\nBcc: all@example.com", Text: "x"}); err != nil {
		t.Fatal(err)
	}
	if got := server.Next(t); got.To != "ada@example.com" || strings.Contains(got.Data, "\r\nBcc:") {
		t.Errorf("arrived: %+v", got)
	}
}

func TestWithoutTLSNothingIsSentToAServerThatOffersNone(t *testing.T) {
	t.Parallel()
	server := mailtest.Start(t)
	c := server.Config()
	c.TLS = "starttls"
	if err := mail.Send(t.Context(), c, mail.Message{To: "ada@example.com", Subject: "x", Text: "x"}); err == nil {
		t.Error("it was sent in clear")
	}
}

func TestSettingsAreCheckedAtStart(t *testing.T) {
	t.Parallel()
	good := mail.Config{Address: "127.0.0.1:25", From: "Slipway <slipway@example.com>", TLS: "starttls"}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	if err := (mail.Config{}).Validate(); err != nil || (mail.Config{}).Set() {
		t.Error("no settings are none", err)
	}
	for name, change := range map[string]func(*mail.Config){
		"--smtp-address": func(c *mail.Config) { c.Address = "localhost" },
		"--smtp-from":    func(c *mail.Config) { c.From = "" },
		"--smtp-tls":     func(c *mail.Config) { c.TLS = "maybe" },
	} {
		c := good
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAFullQueueDropsRatherThanWaits(t *testing.T) {
	t.Parallel()
	queue := mail.NewQueue(mail.Config{}, slog.New(slog.DiscardHandler))
	done := make(chan struct{})
	go func() {
		for range 1000 {
			queue.Put(mail.Message{To: "ada@example.com"})
		}
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("it waits")
	}
}
