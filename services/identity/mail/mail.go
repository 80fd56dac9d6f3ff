// Package mail sends the platform's few mails to people, by SMTP (RFC 5321).
package mail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	netmail "net/mail"
	"strconv"
	"time"

	gomail "github.com/wneessen/go-mail"
)

// Config says by which server; the zero value sends nothing.
type Config struct {
	Address  string `koanf:"address" usage:"host:port of the SMTP server; without it nothing is mailed and addresses need no proof"`
	From     string `koanf:"from" usage:"sender of the platform's mails"`
	Username string `koanf:"username" usage:"user at the SMTP server; empty for none"`
	Password string `koanf:"password" secret:"true" usage:"password at the SMTP server"`
	// TLS is starttls, tls (from the first byte) or none.
	TLS string `koanf:"tls" usage:"starttls, tls, or none for a server on this machine"`
}

// Set reports whether mails can be sent.
func (c Config) Set() bool { return c.Address != "" }

// Validate says what is wrong; nothing is when the address is empty.
func (c Config) Validate() error {
	if !c.Set() {
		return nil
	}
	var errs []error
	if _, _, err := split(c.Address); err != nil {
		errs = append(errs, fmt.Errorf("--smtp-address: %q must be host:port", c.Address))
	}
	if _, err := netmail.ParseAddress(c.From); err != nil {
		errs = append(errs, fmt.Errorf("--smtp-from: %q is no mail address", c.From))
	}
	if c.TLS != "" && c.TLS != "starttls" && c.TLS != "tls" && c.TLS != "none" {
		errs = append(errs, fmt.Errorf("--smtp-tls: %q must be starttls, tls or none", c.TLS))
	}
	return errors.Join(errs...)
}

func split(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	port, err = strconv.Atoi(text)
	return host, port, err
}

// Message is one mail to one person.
type Message struct{ To, Subject, Text string }

const (
	// maxQueued bounds mails that wait; sendTimeout and tries bound one.
	maxQueued   = 256
	sendTimeout = 30 * time.Second
	tries       = 3
)

// Queue sends mails one after the other, behind the back of who asks: how long an
// answer takes tells nothing of whether there was something to send.
type Queue struct {
	config  Config
	log     *slog.Logger
	waiting chan Message
}

// NewQueue makes a queue that sends nothing until Run.
func NewQueue(c Config, log *slog.Logger) *Queue {
	return &Queue{config: c, log: log, waiting: make(chan Message, maxQueued)}
}

// Put queues a mail. A full queue drops it, which the log tells: people can ask again.
func (q *Queue) Put(m Message) {
	select {
	case q.waiting <- m:
	default:
		q.log.Error("a mail was dropped: too many wait", "subject", m.Subject)
	}
}

// Run sends until ctx ends.
func (q *Queue) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-q.waiting:
			q.send(ctx, m)
		}
	}
}

func (q *Queue) send(ctx context.Context, m Message) {
	for try := 1; ; try++ {
		err := Send(ctx, q.config, m)
		switch {
		case err == nil:
			return
		case try == tries || ctx.Err() != nil:
			// Not to whom: addresses are nobody's to read in logs.
			q.log.ErrorContext(ctx, "a mail was not sent", "subject", m.Subject, "error", err)
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(try) * time.Second):
		}
	}
}

// Send sends one mail now.
func Send(ctx context.Context, c Config, m Message) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	host, port, err := split(c.Address)
	if err != nil {
		return fmt.Errorf("send a mail: %w", err)
	}
	options := []gomail.Option{gomail.WithPort(port), gomail.WithTimeout(sendTimeout)}
	switch c.TLS {
	case "tls":
		options = append(options, gomail.WithSSL())
	case "none":
		options = append(options, gomail.WithTLSPolicy(gomail.NoTLS))
	default:
		options = append(options, gomail.WithTLSPolicy(gomail.TLSMandatory))
	}
	if c.Username != "" {
		options = append(options, gomail.WithSMTPAuth(gomail.SMTPAuthAutoDiscover), gomail.WithUsername(c.Username), gomail.WithPassword(c.Password))
	}
	client, err := gomail.NewClient(host, options...)
	if err != nil {
		return fmt.Errorf("send a mail: %w", err)
	}
	message := gomail.NewMsg()
	if err := errors.Join(message.From(c.From), message.To(m.To)); err != nil {
		return fmt.Errorf("address a mail: %w", err)
	}
	message.Subject(m.Subject)
	message.SetBodyString(gomail.TypeTextPlain, m.Text)
	if err := client.DialAndSendWithContext(ctx, message); err != nil {
		return fmt.Errorf("send a mail: %w", err)
	}
	return nil
}
