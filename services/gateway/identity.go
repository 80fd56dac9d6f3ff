package gateway

import (
	"context"
	"log/slog"
	"net/http"

	"google.golang.org/grpc"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/caller"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/gateway/authn"
)

// relay passes one call on to the service that answers it, which is told who calls.
func relay[In, Out any](ctx context.Context, log *slog.Logger, doing string, method func(context.Context, In, ...grpc.CallOption) (Out, error), in In) (Out, error) {
	var none Out
	ctx, cancel := outgoing(ctx)
	defer cancel()
	if p := authn.Principal(ctx); p != nil {
		var err error
		if ctx, err = caller.Outgoing(ctx, p); err != nil {
			return none, err
		}
	}
	out, err := method(ctx, in)
	if err != nil {
		p := problem.From(err)
		if p.Status >= http.StatusInternalServerError {
			log.ErrorContext(ctx, "could not "+doing, "error", err)
		}
		return none, p
	}
	return out, nil
}

// accountServer passes on what people do with their own accounts.
type accountServer struct {
	identityv1.UnimplementedAccountServiceServer
	identityv1.UnimplementedSignUpServiceServer
	accounts identityv1.AccountServiceClient
	log      *slog.Logger
}

func (s *accountServer) Register(ctx context.Context, in *identityv1.RegisterRequest) (*identityv1.RegisterResponse, error) {
	return relay(ctx, s.log, "register", s.accounts.Register, in)
}

// SignUp is Register in the words of /api/auth, where a name is a username.
func (s *accountServer) SignUp(ctx context.Context, in *identityv1.SignUpRequest) (*identityv1.SignUpResponse, error) {
	out, err := relay(ctx, s.log, "register", s.accounts.Register, &identityv1.RegisterRequest{
		Email: in.GetEmail(), Password: in.GetPassword(), Name: in.GetUsername(),
	})
	if err != nil {
		return nil, renamed(err, "name", "username")
	}
	return &identityv1.SignUpResponse{User: out.GetUser(), Token: out.GetToken()}, nil
}

// renamed tells of a field at fault in the dialect's own word.
func renamed(err error, from, to string) error {
	p := problem.From(err)
	if p.Code != problem.CodeValidation {
		return p
	}
	fields := make([]problem.Field, len(p.Fields))
	for i, f := range p.Fields {
		if f.Field == from {
			f.Field = to
		}
		fields[i] = f
	}
	return problem.Validation(fields)
}

func (s *accountServer) Login(ctx context.Context, in *identityv1.LoginRequest) (*identityv1.LoginResponse, error) {
	return relay(ctx, s.log, "log in", s.accounts.Login, in)
}

func (s *accountServer) Logout(ctx context.Context, in *identityv1.LogoutRequest) (*identityv1.LogoutResponse, error) {
	return relay(ctx, s.log, "log out", s.accounts.Logout, in)
}

func (s *accountServer) GetMe(ctx context.Context, in *identityv1.GetMeRequest) (*identityv1.GetMeResponse, error) {
	return relay(ctx, s.log, "show an account", s.accounts.GetMe, in)
}

func (s *accountServer) ChangePassword(ctx context.Context, in *identityv1.ChangePasswordRequest) (*identityv1.ChangePasswordResponse, error) {
	return relay(ctx, s.log, "change a password", s.accounts.ChangePassword, in)
}

func (s *accountServer) VerifyEmail(ctx context.Context, in *identityv1.VerifyEmailRequest) (*identityv1.VerifyEmailResponse, error) {
	return relay(ctx, s.log, "verify an address", s.accounts.VerifyEmail, in)
}

func (s *accountServer) SendVerification(ctx context.Context, in *identityv1.SendVerificationRequest) (*identityv1.SendVerificationResponse, error) {
	return relay(ctx, s.log, "mail a code", s.accounts.SendVerification, in)
}

func (s *accountServer) ForgotPassword(ctx context.Context, in *identityv1.ForgotPasswordRequest) (*identityv1.ForgotPasswordResponse, error) {
	return relay(ctx, s.log, "mail a code", s.accounts.ForgotPassword, in)
}

func (s *accountServer) ResetPassword(ctx context.Context, in *identityv1.ResetPasswordRequest) (*identityv1.ResetPasswordResponse, error) {
	return relay(ctx, s.log, "reset a password", s.accounts.ResetPassword, in)
}

func (s *accountServer) DeleteAccount(ctx context.Context, in *identityv1.DeleteAccountRequest) (*identityv1.DeleteAccountResponse, error) {
	return relay(ctx, s.log, "delete an account", s.accounts.DeleteAccount, in)
}

func (s *accountServer) EnrollTotp(ctx context.Context, in *identityv1.EnrollTotpRequest) (*identityv1.EnrollTotpResponse, error) {
	return relay(ctx, s.log, "propose a second factor", s.accounts.EnrollTotp, in)
}

func (s *accountServer) ConfirmTotp(ctx context.Context, in *identityv1.ConfirmTotpRequest) (*identityv1.ConfirmTotpResponse, error) {
	return relay(ctx, s.log, "confirm a second factor", s.accounts.ConfirmTotp, in)
}

func (s *accountServer) DisableTotp(ctx context.Context, in *identityv1.DisableTotpRequest) (*identityv1.DisableTotpResponse, error) {
	return relay(ctx, s.log, "take a second factor away", s.accounts.DisableTotp, in)
}

// orgServer passes on what is done with organizations.
type orgServer struct {
	identityv1.UnimplementedOrgServiceServer
	orgs identityv1.OrgServiceClient
	log  *slog.Logger
}

func (s *orgServer) CreateOrg(ctx context.Context, in *identityv1.CreateOrgRequest) (*identityv1.CreateOrgResponse, error) {
	return relay(ctx, s.log, "create an organization", s.orgs.CreateOrg, in)
}

func (s *orgServer) ListOrgs(ctx context.Context, in *identityv1.ListOrgsRequest) (*identityv1.ListOrgsResponse, error) {
	return relay(ctx, s.log, "list organizations", s.orgs.ListOrgs, in)
}

func (s *orgServer) GetOrg(ctx context.Context, in *identityv1.GetOrgRequest) (*identityv1.GetOrgResponse, error) {
	return relay(ctx, s.log, "show an organization", s.orgs.GetOrg, in)
}

func (s *orgServer) RenameOrg(ctx context.Context, in *identityv1.RenameOrgRequest) (*identityv1.RenameOrgResponse, error) {
	return relay(ctx, s.log, "rename an organization", s.orgs.RenameOrg, in)
}

func (s *orgServer) DeleteOrg(ctx context.Context, in *identityv1.DeleteOrgRequest) (*identityv1.DeleteOrgResponse, error) {
	return relay(ctx, s.log, "delete an organization", s.orgs.DeleteOrg, in)
}

func (s *orgServer) ListMembers(ctx context.Context, in *identityv1.ListMembersRequest) (*identityv1.ListMembersResponse, error) {
	return relay(ctx, s.log, "list members", s.orgs.ListMembers, in)
}

func (s *orgServer) InviteMember(ctx context.Context, in *identityv1.InviteMemberRequest) (*identityv1.InviteMemberResponse, error) {
	return relay(ctx, s.log, "invite a member", s.orgs.InviteMember, in)
}

func (s *orgServer) JoinOrg(ctx context.Context, in *identityv1.JoinOrgRequest) (*identityv1.JoinOrgResponse, error) {
	return relay(ctx, s.log, "join an organization", s.orgs.JoinOrg, in)
}

func (s *orgServer) SetMemberRole(ctx context.Context, in *identityv1.SetMemberRoleRequest) (*identityv1.SetMemberRoleResponse, error) {
	return relay(ctx, s.log, "set a member's role", s.orgs.SetMemberRole, in)
}

func (s *orgServer) RemoveMember(ctx context.Context, in *identityv1.RemoveMemberRequest) (*identityv1.RemoveMemberResponse, error) {
	return relay(ctx, s.log, "remove a member", s.orgs.RemoveMember, in)
}

// keyServer passes on what is done with API keys.
type keyServer struct {
	identityv1.UnimplementedApiKeyServiceServer
	keys identityv1.ApiKeyServiceClient
	log  *slog.Logger
}

func (s *keyServer) CreateApiKey(ctx context.Context, in *identityv1.CreateApiKeyRequest) (*identityv1.CreateApiKeyResponse, error) {
	return relay(ctx, s.log, "create an API key", s.keys.CreateApiKey, in)
}

func (s *keyServer) ListApiKeys(ctx context.Context, in *identityv1.ListApiKeysRequest) (*identityv1.ListApiKeysResponse, error) {
	return relay(ctx, s.log, "list API keys", s.keys.ListApiKeys, in)
}

func (s *keyServer) RevokeApiKey(ctx context.Context, in *identityv1.RevokeApiKeyRequest) (*identityv1.RevokeApiKeyResponse, error) {
	return relay(ctx, s.log, "revoke an API key", s.keys.RevokeApiKey, in)
}
