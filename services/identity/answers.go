package identity

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"net/http"
	netmail "net/mail"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/caller"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/identity/operator"
	"github.com/slipway-paas/slipway/services/identity/org"
	"github.com/slipway-paas/slipway/services/identity/password"
)

// Codes of problems that are identity's own.
const (
	codeSecondFactor = "second_factor_required"
	codeUnverified   = "email_unverified"
)

// seenWithin bounds how long an answer waits for the directory to see what it did.
const seenWithin = 2 * time.Second

func starting() error {
	return problem.Unavailable("Slipway is starting and does not know its operators yet; try again in a second.", time.Second)
}

// wrongLogin is all that anybody hears whose login fails, whatever it was.
func wrongLogin() error {
	return problem.Unauthorized("The e-mail address or the password is wrong; check both and try again.")
}

func wrongCode() error {
	return &problem.Error{Status: http.StatusUnauthorized, Code: codeSecondFactor, Message: "The code is wrong, or was used already; wait for the next one and log in again with it as code."}
}

func noOrg() error {
	return problem.NotFound("There is no such organization, or you are not in it; GET /api/v1/orgs lists yours.")
}

// answer makes an error of the inside one for the outside.
func (s *Service) answer(ctx context.Context, doing string, err error) error {
	var own *problem.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return own
	case errors.Is(err, eventstore.ErrConflict), errors.Is(err, operator.ErrStale):
		return problem.Conflict("Others are changing the same at the same time; look at it, and try again.")
	case errors.Is(err, eventstore.ErrUnavailable):
		return problem.Unavailable("The event log is not answering; whether it was done is not known. Look, and try again.", time.Second)
	case errors.Is(err, password.ErrBusy):
		return problem.Unavailable("Too many logins are being checked at once; try again in a second.", time.Second)
	case errors.Is(err, operator.ErrCode):
		return wrongCode()
	case errors.Is(err, operator.ErrSecondFactor):
		return problem.InvalidState("The second factor is confirmed already, or there is none yet; POST /api/v1/auth/totp proposes one.")
	case errors.Is(err, org.ErrUnknown):
		return problem.NotFound("There is no such organization, member or invitation, or you are not in it.")
	case errors.Is(err, org.ErrForbidden):
		return problem.Forbidden("Your role in the organization does not allow this; ask an owner.")
	case errors.Is(err, org.ErrLastOwner):
		return problem.InvalidState("An organization needs an owner; make somebody else one first.")
	case errors.Is(err, org.ErrPersonal):
		return problem.InvalidState("This is your personal organization: it goes with your account, POST /api/v1/auth/delete.")
	case errors.Is(err, org.ErrMember):
		return problem.Validation([]problem.Field{{Field: "email", Message: "is a member or invited already"}})
	case errors.Is(err, org.ErrFull):
		return problem.Limit(fmt.Sprintf("The organization has %d members and invitations, which is as many as it may have; remove some first.", org.MaxMembers), 0)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	s.deps.Log.ErrorContext(ctx, "could not "+doing, "error", err)
	return problem.From(err)
}

// caller is who calls, as the gateway says.
func (s *Service) caller(ctx context.Context) (*identityv1.Principal, error) {
	if s.Ready() != nil {
		return nil, starting()
	}
	p := &identityv1.Principal{}
	if err := caller.Incoming(ctx, p); err != nil || p.GetOperatorId() == "" {
		return nil, problem.Unauthorized("The call names no operator.")
	}
	return p, nil
}

// seen waits until what was written counts in the directory.
func (s *Service) seen(ctx context.Context, sequence uint64) error {
	ctx, cancel := context.WithTimeout(ctx, seenWithin)
	defer cancel()
	if err := s.known.wait(ctx, sequence); err != nil {
		return problem.Unavailable("It is done, and does not count everywhere yet; look again in a moment.", time.Second)
	}
	return nil
}

// normalEmail is the address as accounts are found by it; ok is false for none.
func normalEmail(email string) (normal string, ok bool) {
	email = strings.TrimSpace(email)
	if len(email) > 254 || !utf8.ValidString(email) {
		return "", false
	}
	parsed, err := netmail.ParseAddress(email)
	if err != nil || parsed.Address != email || parsed.Name != "" {
		return "", false
	}
	at := strings.LastIndexByte(email, '@')
	if at < 1 || at > 64 || strings.ContainsFunc(email, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }) {
		return "", false
	}
	return strings.ToLower(email), true
}

// fields gathers what is wrong with a request.
type fields []problem.Field

func (f *fields) add(ok bool, field, message string) {
	if !ok {
		*f = append(*f, problem.Field{Field: field, Message: message})
	}
}

func (f *fields) err() error {
	if len(*f) == 0 {
		return nil
	}
	return problem.Validation(*f)
}

// printable reports whether a name is for people to read: up to most characters.
func printable(name string, most int) bool {
	return strings.TrimSpace(name) != "" && utf8.RuneCountInString(name) <= most &&
		!strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) })
}

func (f *fields) password(field, given string) {
	n := utf8.RuneCountInString(given)
	f.add(n >= password.Least && n <= password.Most && utf8.ValidString(given), field, fmt.Sprintf("must have %d to %d characters", password.Least, password.Most))
}

// millis is a time as the public API shows it.
func millis(t time.Time) *timestamppb.Timestamp {
	return timestamppb.New(t.Truncate(time.Millisecond))
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

// newCode makes a code of 100 random bits, for people to copy.
func newCode() string {
	var raw [15]byte
	// crypto/rand.Read never fails.
	_, _ = rand.Read(raw[:])
	return base32.StdEncoding.EncodeToString(raw[:])[:20]
}
