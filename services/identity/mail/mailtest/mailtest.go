// Package mailtest is a real SMTP server in a test, which keeps what it is sent.
package mailtest

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/slipway-paas/slipway/services/identity/mail"
)

// Mail is what arrived: for whom the envelope says, and all of the message.
type Mail struct{ From, To, Data string }

// Server keeps mails until they are asked for.
type Server struct {
	address string
	mails   chan Mail
}

// Start starts a server that ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{address: listener.Addr().String(), mails: make(chan Mail, 64)}
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &session{server: s}, nil }))
	server.Domain, server.ReadTimeout, server.WriteTimeout = "localhost", 10*time.Second, 10*time.Second
	server.MaxMessageBytes, server.MaxRecipients = 1<<20, 4
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		// What is open is the test's own; Serve's error only says that it was closed.
		_ = server.Close()
		<-done
	})
	return s
}

// Config sends mails here.
func (s *Server) Config() mail.Config {
	return mail.Config{Address: s.address, From: "slipway@example.com", TLS: "none"}
}

// Next waits for the next mail.
func (s *Server) Next(t testing.TB) Mail {
	t.Helper()
	select {
	case m := <-s.mails:
		return m
	case <-time.After(30 * time.Second):
		t.Fatal("no mail arrived")
		return Mail{}
	}
}

// Waiting is how many mails have arrived and were not asked for.
func (s *Server) Waiting() int { return len(s.mails) }

type session struct {
	server *Server
	mail   Mail
}

func (s *session) Reset()        { s.mail = Mail{} }
func (s *session) Logout() error { return nil }

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.mail.From = from
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.mail.To += to
	return nil
}

func (s *session) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.mail.Data = string(data)
	s.server.mails <- s.mail
	return nil
}
