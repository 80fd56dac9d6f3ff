package identity

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/access"
	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/identity/mail"
	"github.com/slipway-paas/slipway/services/identity/oauthapp"
	"github.com/slipway-paas/slipway/services/identity/org"
)

// maxOrgs bounds the organizations that one operator is in.
const maxOrgs = 100

// orgs answers OrgService.
type orgs struct {
	identityv1.UnimplementedOrgServiceServer
	*Service
}

// within is the one place that binds a call to an organization: who calls must be in
// it, with that role at least, and what speaks for one organization speaks for no other.
// To everybody else there is no such organization.
func (s *Service) within(ctx context.Context, orgID, least string) (*identityv1.Principal, org.State, error) {
	p, err := s.caller(ctx)
	if err != nil {
		return nil, org.State{}, err
	}
	state, _ := s.known.org(orgID)
	member, in := state.Members[p.GetOperatorId()]
	bound := p.GetKind() != identityv1.CredentialKind_CREDENTIAL_KIND_SESSION
	switch {
	case !in, bound && p.GetOrgId() != orgID:
		return nil, org.State{}, noOrg()
	case !access.AtLeast(member.Role, least):
		return nil, org.State{}, problem.Forbidden("This needs the role " + least + " in the organization, and yours is " + member.Role + "; ask an owner.")
	}
	return p, state, nil
}

func orgAggregate(id string) subjects.Aggregate { return subjects.Of(id, subjects.Org, id) }

// changeOrg runs a command on an organization and waits until it counts.
func (s *Service) changeOrg(ctx context.Context, id, by string, c org.Command) (org.State, error) {
	result, err := s.orgs.Handle(ctx, decider.Command[org.Command]{Aggregate: orgAggregate(id), Command: c, Actor: by})
	if err != nil {
		return org.State{}, fmt.Errorf("%T: %w", c, err)
	}
	return result.State, s.seen(ctx, result.Sequence)
}

func shownOrg(state org.State, role string) *identityv1.Org {
	return &identityv1.Org{Id: state.ID, Name: state.Name, Personal: state.Personal, Role: role, CreatedAt: millis(state.CreatedAt)}
}

// CreateOrg implements identityv1.OrgServiceServer.
func (s orgs) CreateOrg(ctx context.Context, in *identityv1.CreateOrgRequest) (*identityv1.CreateOrgResponse, error) {
	p, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	name := strings.TrimSpace(in.GetName())
	if !printable(name, 64) {
		return nil, problem.Validation([]problem.Field{{Field: "name", Message: "must have 1 to 64 printable characters"}})
	}
	if len(s.known.orgsOf(p.GetOperatorId())) >= maxOrgs {
		return nil, problem.Limit(fmt.Sprintf("You are in %d organizations, which is as many as one may be; leave some first.", maxOrgs), 0)
	}
	id := newID()
	state, err := s.changeOrg(ctx, id, p.GetOperatorId(), org.Create{ID: id, Name: name, Owner: p.GetOperatorId()})
	if err != nil {
		return nil, s.answer(ctx, "create an organization", err)
	}
	return &identityv1.CreateOrgResponse{Org: shownOrg(state, access.RoleOwner)}, nil
}

// ListOrgs implements identityv1.OrgServiceServer.
func (s orgs) ListOrgs(ctx context.Context, _ *identityv1.ListOrgsRequest) (*identityv1.ListOrgsResponse, error) {
	p, state, err := s.account(ctx)
	if err != nil {
		return nil, err
	}
	res := &identityv1.ListOrgsResponse{}
	// An app is told of the organization that it acts for; the command line is the person's.
	all := p.GetKind() == identityv1.CredentialKind_CREDENTIAL_KIND_SESSION || p.GetAppId() == oauthapp.CommandLine
	for _, o := range s.known.orgsOf(state.ID) {
		if all || p.GetOrgId() == o.ID {
			res.Orgs = append(res.Orgs, shownOrg(o, o.Members[state.ID].Role))
		}
	}
	if p.GetKind() == identityv1.CredentialKind_CREDENTIAL_KIND_SESSION {
		for _, o := range s.known.invitedTo(state.EmailHash) {
			id, _ := o.Invited(state.EmailHash)
			res.Invitations = append(res.Invitations, shownOrg(o, o.Invitations[id].Role))
		}
	}
	return res, nil
}

// GetOrg implements identityv1.OrgServiceServer.
func (s orgs) GetOrg(ctx context.Context, in *identityv1.GetOrgRequest) (*identityv1.GetOrgResponse, error) {
	p, state, err := s.within(ctx, in.GetOrgId(), access.RoleViewer)
	if err != nil {
		return nil, err
	}
	return &identityv1.GetOrgResponse{Org: shownOrg(state, state.Members[p.GetOperatorId()].Role)}, nil
}

// RenameOrg implements identityv1.OrgServiceServer.
func (s orgs) RenameOrg(ctx context.Context, in *identityv1.RenameOrgRequest) (*identityv1.RenameOrgResponse, error) {
	p, before, err := s.within(ctx, in.GetOrgId(), access.RoleAdmin)
	if err != nil {
		return nil, err
	}
	name := strings.TrimSpace(in.GetName())
	if !printable(name, 64) {
		return nil, problem.Validation([]problem.Field{{Field: "name", Message: "must have 1 to 64 printable characters"}})
	}
	state, err := s.changeOrg(ctx, before.ID, p.GetOperatorId(), org.Rename{By: p.GetOperatorId(), Name: name})
	if err != nil {
		return nil, s.answer(ctx, "rename an organization", err)
	}
	return &identityv1.RenameOrgResponse{Org: shownOrg(state, state.Members[p.GetOperatorId()].Role)}, nil
}

// ListMembers implements identityv1.OrgServiceServer.
func (s orgs) ListMembers(ctx context.Context, in *identityv1.ListMembersRequest) (*identityv1.ListMembersResponse, error) {
	_, state, err := s.within(ctx, in.GetOrgId(), access.RoleViewer)
	if err != nil {
		return nil, err
	}
	res := &identityv1.ListMembersResponse{}
	for id := range state.Members {
		m, err := s.member(ctx, state, id)
		if err != nil {
			return nil, s.answer(ctx, "show a member", err)
		}
		res.Members = append(res.Members, m)
	}
	for id := range state.Invitations {
		m, err := s.invited(ctx, state, id)
		if err != nil {
			return nil, s.answer(ctx, "show an invitation", err)
		}
		res.Members = append(res.Members, m)
	}
	slices.SortFunc(res.Members, func(a, b *identityv1.Member) int {
		return cmp.Or(cmp.Compare(a.Status, b.Status), a.GetJoinedAt().AsTime().Compare(b.GetJoinedAt().AsTime()), cmp.Compare(a.Id, b.Id))
	})
	return res, nil
}

func (s *Service) member(ctx context.Context, state org.State, id string) (*identityv1.Member, error) {
	m := state.Members[id]
	account, _ := s.known.operator(id)
	p, err := s.profileOf(ctx, account)
	if err != nil {
		return nil, err
	}
	return &identityv1.Member{Id: id, Email: p.email, Name: p.name, Role: m.Role, Status: "active", JoinedAt: millis(m.Joined)}, nil
}

func (s *Service) invited(ctx context.Context, state org.State, id string) (*identityv1.Member, error) {
	i := state.Invitations[id]
	values, err := s.deps.Seal.Open(ctx, orgAggregate(state.ID), i.Email)
	if err != nil {
		return nil, fmt.Errorf("open an invitation: %w", err)
	}
	return &identityv1.Member{Id: id, Email: values["email"], Role: i.Role, Status: "invited"}, nil
}

// InviteMember implements identityv1.OrgServiceServer. It says the same whether the
// address has an account or not.
func (s orgs) InviteMember(ctx context.Context, in *identityv1.InviteMemberRequest) (*identityv1.InviteMemberResponse, error) {
	p, before, err := s.within(ctx, in.GetOrgId(), access.RoleAdmin)
	if err != nil {
		return nil, err
	}
	email, ok := normalEmail(in.GetEmail())
	var faults fields
	faults.add(ok, "email", "must be an e-mail address like ada@example.com")
	faults.add(access.ValidRole(in.GetRole()), "role", "must be one of "+strings.Join(access.Roles(), ", "))
	if err := faults.err(); err != nil {
		return nil, err
	}
	hash, err := s.secrets.emailHash(ctx, email)
	if err != nil {
		return nil, s.answer(ctx, "invite a member", err)
	}
	sealed, err := s.seal(ctx, orgAggregate(before.ID), map[string]string{"email": strings.TrimSpace(in.GetEmail())})
	if err != nil {
		return nil, s.answer(ctx, "invite a member", err)
	}
	already, _ := s.known.byEmail(hash)
	id := newID()
	state, err := s.changeOrg(ctx, before.ID, p.GetOperatorId(), org.Invite{
		By: p.GetOperatorId(), ID: id, Operator: already.ID, EmailHash: hash, Email: sealed, Role: in.GetRole(),
	})
	if err != nil {
		return nil, s.answer(ctx, "invite a member", err)
	}
	if s.config.SMTP.Set() {
		s.mails.Put(mail.Message{To: strings.TrimSpace(in.GetEmail()), Subject: "You are invited to an organization at Slipway",
			Text: "You may join the organization " + state.Name + " as " + in.GetRole() + ".\nLog in, or register with this address, and POST /api/v1/orgs/" + state.ID + "/join.\n"})
	}
	m, err := s.invited(ctx, state, id)
	if err != nil {
		return nil, s.answer(ctx, "show an invitation", err)
	}
	return &identityv1.InviteMemberResponse{Member: m}, nil
}

// JoinOrg implements identityv1.OrgServiceServer.
func (s orgs) JoinOrg(ctx context.Context, in *identityv1.JoinOrgRequest) (*identityv1.JoinOrgResponse, error) {
	_, account, err := s.account(ctx)
	if err != nil {
		return nil, err
	}
	if _, found := s.known.org(in.GetOrgId()); !found {
		return nil, noOrg()
	}
	state, err := s.changeOrg(ctx, in.GetOrgId(), account.ID, org.Join{Operator: account.ID, EmailHash: account.EmailHash})
	if err != nil {
		return nil, s.answer(ctx, "join an organization", err)
	}
	return &identityv1.JoinOrgResponse{Org: shownOrg(state, state.Members[account.ID].Role)}, nil
}

// SetMemberRole implements identityv1.OrgServiceServer.
func (s orgs) SetMemberRole(ctx context.Context, in *identityv1.SetMemberRoleRequest) (*identityv1.SetMemberRoleResponse, error) {
	p, before, err := s.within(ctx, in.GetOrgId(), access.RoleAdmin)
	if err != nil {
		return nil, err
	}
	if !access.ValidRole(in.GetRole()) {
		return nil, problem.Validation([]problem.Field{{Field: "role", Message: "must be one of " + strings.Join(access.Roles(), ", ")}})
	}
	state, err := s.changeOrg(ctx, before.ID, p.GetOperatorId(), org.SetRole{By: p.GetOperatorId(), Operator: in.GetMemberId(), Role: in.GetRole()})
	if err != nil {
		return nil, s.answer(ctx, "set a member's role", err)
	}
	m, err := s.member(ctx, state, in.GetMemberId())
	if err != nil {
		return nil, s.answer(ctx, "show a member", err)
	}
	return &identityv1.SetMemberRoleResponse{Member: m}, nil
}

// RemoveMember implements identityv1.OrgServiceServer.
func (s orgs) RemoveMember(ctx context.Context, in *identityv1.RemoveMemberRequest) (*identityv1.RemoveMemberResponse, error) {
	// A viewer may leave; what else is allowed the organization says.
	p, state, err := s.within(ctx, in.GetOrgId(), access.RoleViewer)
	if err != nil {
		return nil, err
	}
	if _, err := s.changeOrg(ctx, state.ID, p.GetOperatorId(), org.Remove{By: p.GetOperatorId(), ID: in.GetMemberId()}); err != nil {
		return nil, s.answer(ctx, "remove a member", err)
	}
	return &identityv1.RemoveMemberResponse{Message: "Removed"}, nil
}
