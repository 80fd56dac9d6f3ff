// Package org is the aggregate of one organization: who is in it, and as what. It is
// pure, and it alone says what a role may do to other members.
package org

import (
	"errors"
	"maps"
	"time"

	"google.golang.org/protobuf/proto"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/access"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/services/identity/credential"
)

// MaxMembers bounds members and invitations of one organization.
const MaxMembers = 500

var (
	// ErrExists is returned when an organization is to be made twice.
	ErrExists = errors.New("the organization exists already")
	// ErrUnknown is returned to who is no member, and for what is not there.
	ErrUnknown = errors.New("there is no such organization, member or invitation")
	// ErrForbidden is returned to a member whose role does not allow it.
	ErrForbidden = errors.New("the role does not allow this")
	// ErrLastOwner is returned when the last owner is to go or to be less.
	ErrLastOwner = errors.New("an organization needs an owner")
	// ErrMember is returned when who is invited is a member, or invited, already.
	ErrMember = errors.New("is a member or invited already")
	// ErrFull is returned when there are as many members as there may be.
	ErrFull = errors.New("the organization has as many members as it may have")
	// ErrPersonal is returned when a personal organization is to go without its account.
	ErrPersonal = errors.New("a personal organization goes with its account")
	// ErrMalformed is returned for a command that lacks something.
	ErrMalformed = errors.New("the command lacks an id or names no role")
)

// Member is an operator in an organization.
type Member struct {
	Role   string
	Joined time.Time
}

// Invitation lets who has the address join.
type Invitation struct {
	EmailHash credential.Hash
	// Email is sealed.
	Email []byte
	Role  string
}

// State is an organization; the zero State is none yet.
type State struct {
	ID, Name  string
	Personal  bool
	CreatedAt time.Time
	// Deleted organizations keep their id, so that it is never another's.
	Deleted bool
	// Members are by the operator's id, Invitations by their own.
	Members     map[string]Member
	Invitations map[string]Invitation
}

// Exists reports whether the organization has been made and not been deleted.
func (s State) Exists() bool { return s.ID != "" && !s.Deleted }

// OnlyOwner reports whether nobody else owns the organization.
func (s State) OnlyOwner(operator string) bool {
	return s.Members[operator].Role == access.RoleOwner && s.owners() == 1
}

// Invited returns the invitation of who has that address.
func (s State) Invited(email credential.Hash) (id string, found bool) {
	for id, i := range s.Invitations {
		if i.EmailHash == email {
			return id, true
		}
	}
	return "", false
}

func (s State) owners() int {
	n := 0
	for _, m := range s.Members {
		if m.Role == access.RoleOwner {
			n++
		}
	}
	return n
}

// Command asks for a change.
type Command interface{ command() }

type (
	// Create makes an organization with its owner.
	Create struct {
		ID, Name, Owner string
		Personal        bool
	}
	// Rename gives it another name.
	Rename struct{ By, Name string }
	// Delete ends it for good. WithAccount says that its owner's account ends too.
	Delete struct {
		By          string
		WithAccount bool
	}
	// Invite lets who has the address join. Operator is who that is now, if anybody.
	Invite struct {
		By, ID, Operator string
		EmailHash        credential.Hash
		Email            []byte
		Role             string
	}
	// Join takes the invitation of the operator's address.
	Join struct {
		Operator  string
		EmailHash credential.Hash
	}
	// SetRole gives a member another role.
	SetRole struct{ By, Operator, Role string }
	// Remove takes a member or an invitation away; By may be the member, who leaves.
	Remove struct{ By, ID string }
)

func (Create) command()  {}
func (Rename) command()  {}
func (Delete) command()  {}
func (Invite) command()  {}
func (Join) command()    {}
func (SetRole) command() {}
func (Remove) command()  {}

// Decider runs commands on an organization.
func Decider() decider.Decider[State, Command] {
	return decider.Decider[State, Command]{
		Initial: func() State { return State{} }, Decide: Decide, Evolve: Evolve,
	}
}

// Decide says what happens; nil for nothing. Errors: those of this package.
func Decide(s State, c Command, _ time.Time) (proto.Message, error) {
	if c, ok := c.(Create); ok {
		switch {
		case s.ID != "":
			return nil, ErrExists
		case c.ID == "", c.Name == "", c.Owner == "":
			return nil, ErrMalformed
		}
		return &identityv1.OrgCreated{OrgId: c.ID, Name: c.Name, OwnerId: c.Owner, Personal: c.Personal}, nil
	}
	if !s.Exists() {
		return nil, ErrUnknown
	}
	switch c := c.(type) {
	case Rename:
		if err := manages(s, c.By); err != nil {
			return nil, err
		}
		switch c.Name {
		case "":
			return nil, ErrMalformed
		case s.Name:
			return nil, nil
		}
		return &identityv1.OrgRenamed{Name: c.Name}, nil
	case Delete:
		if err := manages(s, c.By, access.RoleOwner); err != nil {
			return nil, err
		}
		if s.Personal && !c.WithAccount {
			return nil, ErrPersonal
		}
		return &identityv1.OrgDeleted{DeletedBy: c.By}, nil
	case Invite:
		return invite(s, c)
	case Join:
		if _, member := s.Members[c.Operator]; member {
			return nil, nil
		}
		id, found := s.Invited(c.EmailHash)
		if !found || c.Operator == "" || c.EmailHash == (credential.Hash{}) {
			return nil, ErrUnknown
		}
		return &identityv1.MemberJoined{OperatorId: c.Operator, InvitationId: id, Role: s.Invitations[id].Role}, nil
	case SetRole:
		return setRole(s, c)
	case Remove:
		return remove(s, c)
	default:
		return nil, ErrMalformed
	}
}

// manages says whether who commands may give, change or take away a role: admins those
// below owner, owners all.
func manages(s State, by string, roles ...string) error {
	member, ok := s.Members[by]
	if !ok {
		return ErrUnknown
	}
	least := access.RoleAdmin
	for _, role := range roles {
		if role == access.RoleOwner {
			least = access.RoleOwner
		}
	}
	if !access.AtLeast(member.Role, least) {
		return ErrForbidden
	}
	return nil
}

func invite(s State, c Invite) (proto.Message, error) {
	if c.ID == "" || c.EmailHash == (credential.Hash{}) || len(c.Email) == 0 || !access.ValidRole(c.Role) {
		return nil, ErrMalformed
	}
	if err := manages(s, c.By, c.Role); err != nil {
		return nil, err
	}
	_, member := s.Members[c.Operator]
	_, invited := s.Invited(c.EmailHash)
	switch {
	case member, invited:
		return nil, ErrMember
	case len(s.Members)+len(s.Invitations) >= MaxMembers:
		return nil, ErrFull
	}
	return &identityv1.MemberInvited{InvitationId: c.ID, EmailHash: c.EmailHash[:], Email: c.Email, Role: c.Role, InvitedBy: c.By}, nil
}

func setRole(s State, c SetRole) (proto.Message, error) {
	if !access.ValidRole(c.Role) {
		return nil, ErrMalformed
	}
	if _, ok := s.Members[c.By]; !ok {
		return nil, ErrUnknown
	}
	member, ok := s.Members[c.Operator]
	if err := manages(s, c.By, member.Role, c.Role); err != nil {
		return nil, err
	}
	switch {
	case !ok:
		return nil, ErrUnknown
	case member.Role == c.Role:
		return nil, nil
	case member.Role == access.RoleOwner && s.owners() == 1:
		return nil, ErrLastOwner
	}
	return &identityv1.MemberRoleChanged{OperatorId: c.Operator, Role: c.Role}, nil
}

func remove(s State, c Remove) (proto.Message, error) {
	if _, ok := s.Members[c.By]; !ok {
		return nil, ErrUnknown
	}
	if i, ok := s.Invitations[c.ID]; ok {
		if err := manages(s, c.By, i.Role); err != nil {
			return nil, err
		}
		return &identityv1.InvitationWithdrawn{InvitationId: c.ID}, nil
	}
	member, ok := s.Members[c.ID]
	if c.By != c.ID {
		if err := manages(s, c.By, member.Role); err != nil {
			return nil, err
		}
	}
	switch {
	case !ok:
		return nil, ErrUnknown
	case member.Role == access.RoleOwner && s.owners() == 1:
		return nil, ErrLastOwner
	}
	return &identityv1.MemberRemoved{OperatorId: c.ID}, nil
}

// Evolve folds one event in.
func Evolve(s State, rec eventstore.Recorded) State {
	if e, ok := rec.Payload.(*identityv1.OrgCreated); ok && s.ID == "" {
		return State{
			ID: e.GetOrgId(), Name: e.GetName(), Personal: e.GetPersonal(), CreatedAt: rec.Time,
			Members: map[string]Member{e.GetOwnerId(): {Role: access.RoleOwner, Joined: rec.Time}},
		}
	}
	if !s.Exists() {
		return s
	}
	switch e := rec.Payload.(type) {
	case *identityv1.OrgDeleted:
		return State{ID: s.ID, Deleted: true}
	case *identityv1.OrgRenamed:
		s.Name = e.GetName()
	case *identityv1.MemberInvited:
		if len(e.GetEmailHash()) == len(credential.Hash{}) {
			s.Invitations = with(s.Invitations, e.GetInvitationId(), Invitation{EmailHash: credential.Hash(e.GetEmailHash()), Email: e.GetEmail(), Role: e.GetRole()})
		}
	case *identityv1.InvitationWithdrawn:
		s.Invitations = without(s.Invitations, e.GetInvitationId())
	case *identityv1.MemberJoined:
		s.Invitations = without(s.Invitations, e.GetInvitationId())
		s.Members = with(s.Members, e.GetOperatorId(), Member{Role: e.GetRole(), Joined: rec.Time})
	case *identityv1.MemberRoleChanged:
		if m, ok := s.Members[e.GetOperatorId()]; ok {
			m.Role = e.GetRole()
			s.Members = with(s.Members, e.GetOperatorId(), m)
		}
	case *identityv1.MemberRemoved:
		s.Members = without(s.Members, e.GetOperatorId())
	}
	return s
}

// with and without leave the map that they are given as it is: states are shared.
func with[V any](m map[string]V, key string, value V) map[string]V {
	out := make(map[string]V, len(m)+1)
	maps.Copy(out, m)
	out[key] = value
	return out
}

func without[V any](m map[string]V, key string) map[string]V {
	out := maps.Clone(m)
	delete(out, key)
	return out
}
