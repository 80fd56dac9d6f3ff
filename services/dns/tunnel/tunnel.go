// Package tunnel is the aggregate of one tunnel from the DNS provider to an edge. Its id
// is the tunnel's name. It is pure; what is sealed in it is opened by who answers.
package tunnel

import (
	"errors"
	"regexp"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	dnsv1 "github.com/slipway-paas/slipway/gen/slipway/dns/v1"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/eventstore"
)

// Statuses, as the API says them.
const (
	Pending  = "pending"
	Ready    = "ready"
	Failed   = "failed"
	Deleting = "deleting"
)

// MaxHostnames bounds those of one tunnel.
const MaxHostnames = 50

var (
	// ErrUnknown is returned for a tunnel that there is not, or no longer.
	ErrUnknown = errors.New("there is no such tunnel")
	// ErrDeleting is returned for a tunnel that is on its way out.
	ErrDeleting = errors.New("the tunnel is being deleted")
	// ErrMalformed is returned for a command that lacks something.
	ErrMalformed = errors.New("the command lacks a name, hostnames or a service")
)

var names = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// ValidName reports whether a tunnel may be called so.
func ValidName(name string) bool { return names.MatchString(name) }

// State is a tunnel; the zero State is none.
type State struct {
	Name, Service string
	Hostnames     []string
	// TunnelID is the provider's, once there is one; Token is sealed.
	TunnelID string
	Token    []byte
	Status   string
	// Code and Reason say why it is not ready.
	Code, Reason string
	RequestedAt  time.Time
}

// Live reports whether there is such a tunnel.
func (s State) Live() bool { return s.Name != "" }

// Wanted reports whether there shall be one.
func (s State) Wanted() bool { return s.Live() && s.Status != Deleting }

// Command asks for a change.
type Command interface{ command() }

type (
	// Request asks for a tunnel, or gives it other hostnames.
	Request struct {
		Name, Service, By string
		Hostnames         []string
	}
	// Made says that the provider has it, with its rules.
	Made struct {
		TunnelID string
		Token    []byte
	}
	// Fail says why it is not there yet.
	Fail struct{ Code, Reason string }
	// Delete asks for its end.
	Delete struct{ By string }
	// Deleted says that the provider has it no more.
	Deleted struct{}
)

func (Request) command() {}
func (Made) command()    {}
func (Fail) command()    {}
func (Delete) command()  {}
func (Deleted) command() {}

// Decider runs commands on a tunnel.
func Decider() decider.Decider[State, Command] {
	return decider.Decider[State, Command]{Initial: func() State { return State{} }, Decide: Decide, Evolve: Evolve}
}

// Decide says what happens; nil for nothing. Errors: those of this package.
func Decide(s State, c Command, _ time.Time) (proto.Message, error) {
	if r, ok := c.(Request); ok {
		switch {
		case !ValidName(r.Name), r.Service == "", len(r.Hostnames) == 0, len(r.Hostnames) > MaxHostnames:
			return nil, ErrMalformed
		case s.Status == Deleting:
			return nil, ErrDeleting
		case s.Live() && s.Service == r.Service && slices.Equal(s.Hostnames, r.Hostnames):
			return nil, nil
		}
		return &dnsv1.TunnelRequested{Name: r.Name, Hostnames: slices.Clone(r.Hostnames), Service: r.Service, RequestedBy: r.By}, nil
	}
	if !s.Live() {
		return nil, ErrUnknown
	}
	switch c := c.(type) {
	case Made:
		if c.TunnelID == "" || len(c.Token) == 0 {
			return nil, ErrMalformed
		}
		if s.Status == Deleting || s.Status == Ready && s.TunnelID == c.TunnelID {
			return nil, nil
		}
		return &dnsv1.TunnelReady{TunnelId: c.TunnelID, Token: slices.Clone(c.Token)}, nil
	case Fail:
		if s.Code == c.Code {
			return nil, nil
		}
		return &dnsv1.TunnelFailed{Code: c.Code, Reason: c.Reason}, nil
	case Delete:
		if s.Status == Deleting {
			return nil, nil
		}
		return &dnsv1.TunnelDeleteRequested{RequestedBy: c.By}, nil
	case Deleted:
		if s.Status != Deleting {
			return nil, nil
		}
		return &dnsv1.TunnelDeleted{}, nil
	}
	return nil, ErrMalformed
}

// Evolve folds one event in.
func Evolve(s State, rec eventstore.Recorded) State {
	switch e := rec.Payload.(type) {
	case *dnsv1.TunnelRequested:
		if s.Status == Deleting {
			return s
		}
		if !s.Live() {
			s.RequestedAt = rec.Time
		}
		s.Name, s.Service, s.Hostnames = e.GetName(), e.GetService(), slices.Clone(e.GetHostnames())
		s.Status, s.Code, s.Reason = Pending, "", ""
	case *dnsv1.TunnelReady:
		if s.Wanted() {
			s.TunnelID, s.Token, s.Status, s.Code, s.Reason = e.GetTunnelId(), slices.Clone(e.GetToken()), Ready, "", ""
		}
	case *dnsv1.TunnelFailed:
		if s.Live() {
			s.Code, s.Reason = e.GetCode(), e.GetReason()
		}
		if s.Wanted() {
			s.Status = Failed
		}
	case *dnsv1.TunnelDeleteRequested:
		if s.Live() {
			s.Status, s.Code, s.Reason = Deleting, "", ""
		}
	case *dnsv1.TunnelDeleted:
		return State{}
	}
	return s
}
