// Package domain is the aggregate of one name that an app's owner brought: pending until
// its DNS says that it is the app's, verified then, active once an edge has a
// certificate for it, failed when nobody looks any more. It is pure.
package domain

import (
	"errors"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/eventstore"
)

// Status is how far a domain is.
type Status string

// Statuses of a domain.
const (
	Pending  Status = "pending"
	Verified Status = "verified"
	Active   Status = "active"
	Failed   Status = "failed"
	// Gone: removed, or lost to its owner.
	Gone Status = "gone"
)

// Codes of what was found wrong with a domain.
const (
	NotFound          = "not_found"
	ResolvesElsewhere = "resolves_elsewhere"
	Loops             = "loops"
	ProofMissing      = "proof_missing"
	DNSUnavailable    = "dns_unavailable"
	CertificateFailed = "certificate_failed"
)

// Methods by which a domain is verified.
const (
	ByCNAME   = "cname"
	ByAddress = "address"
	ByTXT     = "txt"
	// ByRecord is for names in a zone that the platform holds and lets the org use: from
	// outside a record that the provider proxies, or a tunnel, cannot be seen.
	ByRecord = "record"
	// ByClaim is for names that apps held, and were served at, before domains were proved.
	ByClaim = "claim"
)

// askedAgain is how long after somebody asked it is worth noting that they ask again.
const askedAgain = time.Minute

var (
	// ErrExists is returned when a domain is to be added twice.
	ErrExists = errors.New("the domain exists already")
	// ErrUnknown is returned for a domain that does not exist, or no longer.
	ErrUnknown = errors.New("there is no such domain")
	// ErrUnverified is returned for what only a verified domain can have.
	ErrUnverified = errors.New("the domain is not verified")
	// ErrMalformed is returned for a command that lacks something.
	ErrMalformed = errors.New("the command lacks an id, an organization, a deployment, a name or a proof")
)

// State is a domain; the zero State is none yet.
type State struct {
	ID, Org, DeploymentID, Name string
	// Target is the app's own host, Proof what a TXT record must hold.
	Target, Proof string
	ProofNeeded   bool
	AddedBy       string
	AddedAt       time.Time

	Status Status
	// Code and Reason say what was found wrong last; empty for nothing.
	Code, Reason string
	// Since is when it was added, or asked about: it is looked at less and less from then on.
	Since time.Time
	// Method says how it was verified.
	Method     string
	VerifiedAt time.Time

	// Issuer and NotAfter are of the certificate that an edge has; zero for none.
	Issuer   string
	NotAfter time.Time
	// CertificateReason says why there is none, or no new one; empty for nothing.
	CertificateReason string
	RetryAt           time.Time

	// Primary is what the events of this domain say; that of two the later counts.
	Primary      bool
	PrimarySince uint64
}

// Live reports whether there is such a domain.
func (s State) Live() bool { return s.ID != "" && s.Status != Gone }

// Served reports whether edges may serve it.
func (s State) Served() bool { return s.Status == Verified || s.Status == Active }

// Awaited reports whether it is looked for to be verified.
func (s State) Awaited() bool { return s.Status == Pending }

// Command asks for a change.
type Command interface{ command() }

type (
	// Add makes a domain, pending.
	Add struct {
		ID, Org, DeploymentID, Name, Target, Proof string
		ProofNeeded, Primary                       bool
		By                                         string
	}
	// Found says that its DNS is good, by which method.
	Found struct{ Method string }
	// Missed says what is wrong with its DNS, and when it is looked at next; zero for
	// no more.
	Missed struct {
		Code, Reason string
		Attempt      uint32
		Next         time.Time
	}
	// Check asks to look again from the beginning.
	Check struct{ By string }
	// Certified says that an edge has a certificate.
	Certified struct {
		Issuer, Edge string
		NotAfter     time.Time
	}
	// Uncertified says that an edge could not get one.
	Uncertified struct {
		Reason, Edge string
		RetryAt      time.Time
	}
	// SetPrimary makes it its app's primary domain.
	SetPrimary struct{ By string }
	// Remove ends it.
	Remove struct{ By, Reason string }
)

func (Add) command()         {}
func (Found) command()       {}
func (Missed) command()      {}
func (Check) command()       {}
func (Certified) command()   {}
func (Uncertified) command() {}
func (SetPrimary) command()  {}
func (Remove) command()      {}

// Decider runs commands on a domain.
func Decider() decider.Decider[State, Command] {
	return decider.Decider[State, Command]{Initial: func() State { return State{} }, Decide: Decide, Evolve: Evolve}
}

// Decide says what happens; nil for nothing. Errors: those of this package.
func Decide(s State, c Command, now time.Time) (proto.Message, error) {
	if add, ok := c.(Add); ok {
		return decideAdd(s, add)
	}
	if !s.Live() {
		return nil, ErrUnknown
	}
	switch c := c.(type) {
	case Found:
		if s.Served() && s.Code == "" {
			return nil, nil
		}
		return &domainv1.DomainVerified{Method: c.Method, CheckedAt: timestamppb.New(now)}, nil
	case Missed:
		c.Code, c.Reason = text(c.Code), text(c.Reason)
		return decideMissed(s, c, now), nil
	case Check:
		if s.Served() || s.Status == Pending && now.Sub(s.Since) < askedAgain {
			return nil, nil
		}
		return &domainv1.DomainCheckRequested{InitiatedBy: c.By}, nil
	case Certified:
		c.Issuer = text(c.Issuer)
		if !s.Served() {
			return nil, ErrUnverified
		}
		if s.Status == Active && s.CertificateReason == "" && s.Issuer == c.Issuer && s.NotAfter.Equal(c.NotAfter) {
			return nil, nil
		}
		return &domainv1.CertificateObtained{Issuer: c.Issuer, NotAfter: stamp(c.NotAfter), EdgeId: c.Edge}, nil
	case Uncertified:
		c.Reason = text(c.Reason)
		if !s.Served() {
			return nil, ErrUnverified
		}
		if s.CertificateReason == c.Reason {
			return nil, nil
		}
		return &domainv1.CertificateFailed{Reason: c.Reason, RetryAt: stamp(c.RetryAt), EdgeId: c.Edge}, nil
	case SetPrimary:
		// Not compared with Primary: another one's may be the later.
		return &domainv1.PrimaryDomainSet{InitiatedBy: c.By}, nil
	case Remove:
		return &domainv1.DomainRemoved{InitiatedBy: c.By, Reason: c.Reason}, nil
	}
	return nil, ErrMalformed
}

// text is what strangers' servers say as the log can hold it.
func text(said string) string { return strings.ToValidUTF8(said, "\uFFFD") }

func decideAdd(s State, c Add) (proto.Message, error) {
	switch {
	case s.ID != "":
		return nil, ErrExists
	case c.ID == "", c.Org == "", c.DeploymentID == "", c.Name == "", c.Target == "", c.Proof == "":
		return nil, ErrMalformed
	}
	return &domainv1.DomainAdded{
		DomainId: c.ID, OrgId: c.Org, DeploymentId: c.DeploymentID, Name: c.Name, Target: c.Target, Proof: c.Proof,
		ProofNeeded: c.ProofNeeded, Primary: c.Primary, InitiatedBy: c.By,
	}, nil
}

// decideMissed notes what is new. A verified domain that nobody can look up is none the
// worse for it.
func decideMissed(s State, c Missed, now time.Time) proto.Message {
	over := c.Next.IsZero()
	switch {
	case s.Status == Failed:
		return nil
	case s.Served() && (c.Code == DNSUnavailable || s.Code == c.Code):
		return nil
	case !s.Served() && !over && s.Code == c.Code && s.Reason == c.Reason:
		return nil
	}
	return &domainv1.DomainCheckFailed{Code: c.Code, Reason: c.Reason, Attempt: c.Attempt, CheckedAt: timestamppb.New(now), NextCheckAt: stamp(c.Next)}
}

// stamp is absent for no time.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// Evolve folds one event in.
func Evolve(s State, rec eventstore.Recorded) State {
	if added, ok := rec.Payload.(*domainv1.DomainAdded); ok {
		if s.ID != "" {
			return s
		}
		return begin(added, rec)
	}
	if !s.Live() {
		return s
	}
	switch e := rec.Payload.(type) {
	case *domainv1.DomainVerified:
		s.Code, s.Reason = "", ""
		if !s.Served() {
			s.Status = Verified
			s.Method, s.VerifiedAt = e.GetMethod(), timeOf(e.GetCheckedAt())
		}
	case *domainv1.DomainCheckFailed:
		s.Code, s.Reason = e.GetCode(), e.GetReason()
		if !s.Served() && e.GetNextCheckAt() == nil {
			s.Status = Failed
		}
	case *domainv1.DomainCheckRequested:
		if !s.Served() {
			s.Status, s.Since = Pending, rec.Time
		}
	case *domainv1.CertificateObtained:
		if s.Served() {
			s.Status, s.Issuer, s.NotAfter = Active, e.GetIssuer(), timeOf(e.GetNotAfter())
			s.CertificateReason, s.RetryAt = "", time.Time{}
		}
	case *domainv1.CertificateFailed:
		if s.Served() {
			s.CertificateReason, s.RetryAt = e.GetReason(), timeOf(e.GetRetryAt())
		}
	case *domainv1.PrimaryDomainSet:
		s.Primary, s.PrimarySince = true, rec.Sequence
	case *domainv1.PrimaryDomainUnset:
		s.Primary = false
	case *domainv1.DomainLost:
		s.Status, s.Code, s.Reason, s.Primary = Gone, ProofMissing, e.GetReason(), false
	case *domainv1.DomainRemoved:
		s.Status, s.Primary = Gone, false
	}
	return s
}

func begin(e *domainv1.DomainAdded, rec eventstore.Recorded) State {
	s := State{
		ID: e.GetDomainId(), Org: rec.Aggregate.Org, DeploymentID: e.GetDeploymentId(), Name: e.GetName(),
		Target: e.GetTarget(), Proof: e.GetProof(), ProofNeeded: e.GetProofNeeded(),
		AddedBy: e.GetInitiatedBy(), AddedAt: rec.Time, Since: rec.Time, Status: Pending, Primary: e.GetPrimary(),
	}
	if s.Primary {
		s.PrimarySince = rec.Sequence
	}
	return s
}
