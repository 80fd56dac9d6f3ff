package identity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	claimv1 "github.com/slipway-paas/slipway/gen/slipway/claim/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/identity/credential"
	"github.com/slipway-paas/slipway/services/identity/mail"
	"github.com/slipway-paas/slipway/services/identity/operator"
)

// registerTries bounds registering again because others did at the same time.
const registerTries = 8

// firstAccount is the claim of the first account, whose operator runs the platform.
var firstAccount = subjects.Of(subjects.Platform, subjects.Claim, "first-account")

// emailClaim keeps addresses unique. The hash is keyed: nobody can try addresses on it.
func emailClaim(email credential.Hash) subjects.Aggregate {
	return subjects.Of(subjects.Platform, subjects.Claim, "email-"+hex.EncodeToString(email[:16]))
}

// accounts answers AccountService.
type accounts struct {
	identityv1.UnimplementedAccountServiceServer
	*Service
}

// Register implements identityv1.AccountServiceServer. When addresses are proved, an
// address that has an account is answered as one that has none: only its reader learns
// of it.
func (s accounts) Register(ctx context.Context, in *identityv1.RegisterRequest) (*identityv1.RegisterResponse, error) {
	if s.Ready() != nil {
		return nil, starting()
	}
	email, ok := normalEmail(in.GetEmail())
	var faults fields
	faults.add(ok, "email", "must be an e-mail address like ada@example.com")
	faults.password("password", in.GetPassword())
	faults.add(printable(in.GetName(), 100), "name", "must have 1 to 100 printable characters")
	if err := faults.err(); err != nil {
		return nil, err
	}
	res, err := s.register(ctx, newAccount{
		email: email, address: strings.TrimSpace(in.GetEmail()), name: strings.TrimSpace(in.GetName()), password: in.GetPassword(),
	})
	return res, s.answer(ctx, "register an account", err)
}

type newAccount struct {
	email, address, name, password string
}

func (s *Service) register(ctx context.Context, n newAccount) (*identityv1.RegisterResponse, error) {
	email, err := s.secrets.emailHash(ctx, n.email)
	if err != nil {
		return nil, err
	}
	// Before anything is looked up: it is what takes time.
	hash, err := s.passwords.Hash(ctx, n.password)
	if err != nil {
		return nil, fmt.Errorf("hash a password: %w", err)
	}
	id := newID()
	self := subjects.Of(subjects.Platform, subjects.Operator, id)
	held, err := s.claim(ctx, emailClaim(email))
	if err != nil {
		return nil, err
	}
	if held.taken() {
		return s.registeredAlready(n)
	}
	command := operator.Register{ID: id, OrgID: newID(), EmailHash: email}
	code := ""
	if s.config.SMTP.Set() {
		code = newCode()
		command.VerifySHA256 = sha256.Sum256([]byte(code))
	}
	if command.Profile, err = s.seal(ctx, self, map[string]string{"email": n.address, "name": n.name}); err != nil {
		return nil, err
	}
	if command.Password, err = s.seal(ctx, self, map[string]string{"password": hash}); err != nil {
		return nil, err
	}
	state, sequence, err := s.appendAccount(ctx, self, command)
	if errors.Is(err, errTaken) {
		// Whose data key nobody needs.
		if lost := s.deps.Seal.Destroy(context.WithoutCancel(ctx), self); lost != nil {
			s.deps.Log.WarnContext(ctx, "the data key of a refused account is still there", "operator", id, "error", lost)
		}
		return s.registeredAlready(n)
	}
	if err != nil {
		return nil, err
	}
	s.deps.Log.InfoContext(ctx, "an account was made", "operator", id, "admin", state.Admin)
	if err := s.seen(ctx, sequence); err != nil {
		return nil, err
	}
	res := &identityv1.RegisterResponse{User: userOf(state, profile{n.address, n.name})}
	if code != "" {
		s.mails.Put(verification(n.address, code))
		return res, nil
	}
	res.Token, err = s.openSession(ctx, state)
	return res, err
}

// registeredAlready answers for an address that has an account.
func (s *Service) registeredAlready(n newAccount) (*identityv1.RegisterResponse, error) {
	if !s.config.SMTP.Set() {
		return nil, problem.Validation([]problem.Field{{Field: "email", Message: "has an account already; log in with it, or use another"}})
	}
	s.mails.Put(mail.Message{To: n.address, Subject: "You have an account already",
		Text: "Somebody, perhaps you, wanted to register this address at Slipway.\nIt has an account already: log in with it. If it was not you, nothing is to be done.\n"})
	now := millis(s.deps.Now().UTC())
	return &identityv1.RegisterResponse{User: &identityv1.User{
		Id: newID(), Email: n.address, Name: n.name, Role: roleUser, CreatedAt: now, UpdatedAt: now,
	}}, nil
}

func verification(address, code string) mail.Message {
	return mail.Message{To: address, Subject: "Your code for Slipway",
		Text: "This code proves that you read this address. It is good for a day:\n\n    " + code + "\n\nSend it to POST /api/v1/auth/verify-email as code, with your address as email.\nIf you have registered nowhere, nothing is to be done.\n"}
}

var errTaken = errors.New("the address has an account")

// claim is who holds a name, as of the claim's last event.
type claim struct {
	holder   string
	sequence uint64
}

func (c claim) taken() bool { return c.holder != "" }

func (s *Service) claim(ctx context.Context, a subjects.Aggregate) (claim, error) {
	events, err := s.deps.Store.Load(ctx, a, 0)
	if err != nil {
		return claim{}, fmt.Errorf("look at a claim: %w", err)
	}
	var c claim
	for _, e := range events {
		c.sequence = e.Sequence
		switch e := e.Payload.(type) {
		case *claimv1.ClaimTaken:
			c.holder = e.GetHolder()
		case *claimv1.ClaimReleased:
			c.holder = ""
		}
	}
	return c, nil
}

// appendAccount writes the account, its organization and its claims, all or none: of
// several that register at once one is the first, and one has the address. Errors:
// errTaken.
func (s *Service) appendAccount(ctx context.Context, self subjects.Aggregate, c operator.Register) (operator.State, uint64, error) {
	for range registerTries {
		first, err := s.claim(ctx, firstAccount)
		if err != nil {
			return operator.State{}, 0, err
		}
		address, err := s.claim(ctx, emailClaim(c.EmailHash))
		if err != nil {
			return operator.State{}, 0, err
		}
		if address.taken() {
			return operator.State{}, 0, errTaken
		}
		c.Admin = !first.taken()
		made, err := operator.Decide(operator.State{}, c, s.deps.Now())
		if err != nil {
			return operator.State{}, 0, fmt.Errorf("make an account: %w", err)
		}
		take := func(a subjects.Aggregate, now claim, kind, name string) eventstore.Expected {
			return eventstore.Expected{LastSequence: now.sequence, Event: s.event(a, kind+"-"+c.ID, &claimv1.ClaimTaken{Kind: kind, Name: name, Holder: self.String()})}
		}
		batch := []eventstore.Expected{take(emailClaim(c.EmailHash), address, "email", hex.EncodeToString(c.EmailHash[:]))}
		if c.Admin {
			batch = append(batch, take(firstAccount, first, "first_account", "first"))
		}
		batch = append(batch,
			eventstore.Expected{Event: s.event(subjects.Of(c.OrgID, subjects.Org, c.OrgID), "org-"+c.ID, &identityv1.OrgCreated{
				OrgId: c.OrgID, Name: "personal", OwnerId: c.ID, Personal: true,
			})},
			eventstore.Expected{Event: s.event(self, "register-"+c.ID, made)},
		)
		sequence, err := s.deps.Store.AppendBatch(ctx, batch)
		if errors.Is(err, eventstore.ErrConflict) {
			continue
		}
		if err != nil {
			return operator.State{}, 0, fmt.Errorf("write an account to the log: %w", err)
		}
		return operator.Evolve(operator.State{}, eventstore.Recorded{Event: batch[len(batch)-1].Event}), sequence, nil
	}
	return operator.State{}, 0, eventstore.ErrConflict
}

// GetMe implements identityv1.AccountServiceServer.
func (s accounts) GetMe(ctx context.Context, _ *identityv1.GetMeRequest) (*identityv1.GetMeResponse, error) {
	_, state, err := s.account(ctx)
	if err != nil {
		return nil, err
	}
	user, err := s.user(ctx, state)
	if err != nil {
		return nil, s.answer(ctx, "open a profile", err)
	}
	return &identityv1.GetMeResponse{User: user}, nil
}

// account is the caller's own, as the directory has it.
func (s *Service) account(ctx context.Context) (*identityv1.Principal, operator.State, error) {
	p, err := s.caller(ctx)
	if err != nil {
		return nil, operator.State{}, err
	}
	state, ok := s.known.operator(p.GetOperatorId())
	if !ok {
		return nil, operator.State{}, problem.Unauthorized("The call names no operator that there is.")
	}
	return p, state, nil
}

// Roles of people on the platform.
const (
	roleAdmin = "admin"
	roleUser  = "user"
)

type profile struct{ email, name string }

// profileOf opens what is sealed; the first operator has none.
func (s *Service) profileOf(ctx context.Context, state operator.State) (profile, error) {
	if len(state.Profile) == 0 {
		return profile{name: "first operator"}, nil
	}
	values, err := s.deps.Seal.Open(ctx, s.known.home(state.ID), state.Profile)
	if err != nil {
		return profile{}, fmt.Errorf("open a profile: %w", err)
	}
	return profile{email: values["email"], name: values["name"]}, nil
}

func (s *Service) user(ctx context.Context, state operator.State) (*identityv1.User, error) {
	p, err := s.profileOf(ctx, state)
	if err != nil {
		return nil, err
	}
	return userOf(state, p), nil
}

func userOf(state operator.State, p profile) *identityv1.User {
	role := roleUser
	if state.Admin {
		role = roleAdmin
	}
	return &identityv1.User{
		Id: state.ID, Email: p.email, Name: p.name, Role: role,
		CreatedAt: millis(state.CreatedAt), UpdatedAt: millis(state.UpdatedAt),
	}
}

// seal encrypts values with the aggregate's data key.
func (s *Service) seal(ctx context.Context, a subjects.Aggregate, values map[string]string) ([]byte, error) {
	_, sealed, err := s.deps.Seal.Seal(ctx, a, values)
	if err != nil {
		return nil, fmt.Errorf("seal personal data: %w", err)
	}
	return sealed, nil
}

// change runs a command on the caller's account and waits until it counts.
func (s *Service) change(ctx context.Context, id string, c operator.Command) (operator.State, error) {
	result, err := s.operators.Handle(ctx, decider.Command[operator.Command]{Aggregate: s.known.home(id), Command: c, Actor: id})
	if err != nil {
		return operator.State{}, fmt.Errorf("%T: %w", c, err)
	}
	return result.State, s.seen(ctx, result.Sequence)
}
