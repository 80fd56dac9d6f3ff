package authn

import (
	"slices"
	"strings"

	adminv1 "github.com/slipway-paas/slipway/gen/slipway/admin/v1"
	appsv1 "github.com/slipway-paas/slipway/gen/slipway/apps/v1"
	deployv1 "github.com/slipway-paas/slipway/gen/slipway/deploy/v1"
	dnsv1 "github.com/slipway-paas/slipway/gen/slipway/dns/v1"
	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	oauthv1 "github.com/slipway-paas/slipway/gen/slipway/oauth/v1"
	streamv1 "github.com/slipway-paas/slipway/gen/slipway/stream/v1"
	webhooksv1 "github.com/slipway-paas/slipway/gen/slipway/webhooks/v1"
	"github.com/slipway-paas/slipway/libs/access"
)

// Kinds of credential.
const (
	accessToken = identityv1.CredentialKind_CREDENTIAL_KIND_ACCESS_TOKEN
	session     = identityv1.CredentialKind_CREDENTIAL_KIND_SESSION
	apiKey      = identityv1.CredentialKind_CREDENTIAL_KIND_API_KEY
)

// rule says who may call a method: for each kind of credential that it takes, the scope
// that one needs; none when that is empty, either of those with | between, all of those
// with a space between. A rule that takes no kind is public.
type rule map[identityv1.CredentialKind]string

// enough reports whether scopes are what is needed.
func enough(scopes []string, need string) bool {
	if need == noScope {
		return true
	}
	for _, way := range strings.Split(need, "|") {
		if !slices.ContainsFunc(strings.Fields(way), func(scope string) bool { return !access.Holds(scopes, scope) }) {
			return true
		}
	}
	return false
}

// writesApps is either of the scopes that change apps.
const writesApps = access.AppsWrite + "|" + access.DeployManage

// noScope is for methods that look at nothing but who calls.
const noScope = ""

var (
	public = rule{}
	// The deploy dialect is for OAuth apps.
	deployRead   = rule{accessToken: access.DeployRead}
	deployManage = rule{accessToken: access.DeployManage}
	// The ingress of an app is for people and what acts for them.
	ingressRead   = rule{accessToken: access.DeployRead, session: access.DeployRead, apiKey: access.DeployRead}
	ingressManage = rule{accessToken: access.DeployManage, session: access.AppsWrite, apiKey: access.AppsWrite}
	// eventsRead is for people and what acts for them.
	eventsRead = rule{accessToken: access.EventsRead, session: access.EventsRead, apiKey: access.EventsRead}
	// platform is for those who run it, by whatever they hold.
	platform = rule{accessToken: access.Admin, session: access.Admin, apiKey: access.Admin}
	// person is for people and nothing that acts for them.
	person = rule{session: noScope}
	// anybody is for people and what acts for them.
	anybody = rule{session: noScope, accessToken: noScope, apiKey: noScope}
	// bearer is for people and OAuth apps.
	bearer = rule{session: noScope, accessToken: noScope}
	// manage is for people, and the first operator's token.
	manage = rule{session: noScope, accessToken: access.Admin}
	// connect is manage, and for what people let set things up and read events: it sets
	// up where events go.
	connect = rule{session: noScope, accessToken: access.AppsWrite + " " + access.EventsRead + "|" + access.Admin}
	// manageEvents is for people, and for their command line: what it gives away is no
	// more than the scope reads, and the role admin is asked for besides.
	manageEvents = rule{session: noScope, accessToken: access.EventsRead}
	// The app dialect is for people and what acts for them; either scope includes reading.
	appsRead  = rule{session: access.DeployRead, apiKey: access.DeployRead, accessToken: access.DeployRead}
	appsWrite = rule{session: writesApps, apiKey: writesApps, accessToken: writesApps}
)

// rules has every gRPC method of the public API. A method that is not here is refused.
var rules = map[string]rule{
	deployv1.DeployService_ListTiers_FullMethodName:              deployRead,
	deployv1.DeployService_CreateDeployment_FullMethodName:       deployManage,
	deployv1.DeployService_ListDeployments_FullMethodName:        deployRead,
	deployv1.DeployService_GetDeployment_FullMethodName:          deployRead,
	deployv1.DeployService_GetDeploymentStatus_FullMethodName:    deployRead,
	deployv1.DeployService_ListDeploymentLogs_FullMethodName:     deployRead,
	deployv1.DeployService_RestartDeployment_FullMethodName:      deployManage,
	deployv1.DeployService_StopDeployment_FullMethodName:         deployManage,
	deployv1.DeployService_DestroyDeployment_FullMethodName:      deployManage,
	deployv1.DeployService_FollowDeploymentEvents_FullMethodName: deployRead,

	appsv1.AppService_ListProcesses_FullMethodName:         appsRead,
	appsv1.AppService_ScaleProcesses_FullMethodName:        appsWrite,
	appsv1.AppService_ListReleases_FullMethodName:          appsRead,
	appsv1.AppService_RollbackApp_FullMethodName:           appsWrite,
	appsv1.IngressService_GetIngress_FullMethodName:        ingressRead,
	appsv1.IngressService_ConfigureIngress_FullMethodName:  ingressManage,
	appsv1.IngressService_GetRequestMetrics_FullMethodName: ingressRead,
	appsv1.IngressService_FollowAccessLog_FullMethodName:   ingressRead,

	streamv1.EventService_FollowEvents_FullMethodName: eventsRead,

	adminv1.AdminService_ListNodes_FullMethodName:         platform,
	adminv1.AdminService_DrainNode_FullMethodName:         platform,
	adminv1.AdminService_UncordonNode_FullMethodName:      platform,
	adminv1.AdminService_GetProjection_FullMethodName:     platform,
	adminv1.AdminService_RebuildProjection_FullMethodName: platform,
	adminv1.AdminService_ListDeadLetters_FullMethodName:   platform,
	adminv1.AdminService_GetDeadLetter_FullMethodName:     platform,
	adminv1.AdminService_ReplayDeadLetter_FullMethodName:  platform,
	adminv1.AdminService_DropDeadLetter_FullMethodName:    platform,
	adminv1.AdminService_RotateKeys_FullMethodName:        platform,

	dnsv1.DNSAdminService_GetDNS_FullMethodName:            platform,
	dnsv1.DNSAdminService_SyncDNS_FullMethodName:           platform,
	dnsv1.DNSAdminService_ListTunnels_FullMethodName:       platform,
	dnsv1.DNSAdminService_CreateTunnel_FullMethodName:      platform,
	dnsv1.DNSAdminService_DeleteTunnel_FullMethodName:      platform,
	dnsv1.DNSAdminService_RevealTunnelToken_FullMethodName: platform,

	identityv1.AccountService_Register_FullMethodName:         public,
	identityv1.SignUpService_SignUp_FullMethodName:            public,
	identityv1.AccountService_Login_FullMethodName:            public,
	identityv1.AccountService_VerifyEmail_FullMethodName:      public,
	identityv1.AccountService_SendVerification_FullMethodName: public,
	identityv1.AccountService_ForgotPassword_FullMethodName:   public,
	identityv1.AccountService_ResetPassword_FullMethodName:    public,
	identityv1.AccountService_GetMe_FullMethodName:            anybody,
	identityv1.AccountService_Logout_FullMethodName:           person,
	identityv1.AccountService_ChangePassword_FullMethodName:   person,
	identityv1.AccountService_DeleteAccount_FullMethodName:    person,
	identityv1.AccountService_EnrollTotp_FullMethodName:       person,
	identityv1.AccountService_ConfirmTotp_FullMethodName:      person,
	identityv1.AccountService_DisableTotp_FullMethodName:      person,

	identityv1.OrgService_CreateOrg_FullMethodName:     manage,
	identityv1.OrgService_ListOrgs_FullMethodName:      bearer,
	identityv1.OrgService_GetOrg_FullMethodName:        manage,
	identityv1.OrgService_RenameOrg_FullMethodName:     manage,
	identityv1.OrgService_DeleteOrg_FullMethodName:     manage,
	identityv1.OrgService_ListMembers_FullMethodName:   manage,
	identityv1.OrgService_InviteMember_FullMethodName:  manage,
	identityv1.OrgService_JoinOrg_FullMethodName:       person,
	identityv1.OrgService_SetMemberRole_FullMethodName: manage,
	identityv1.OrgService_RemoveMember_FullMethodName:  manage,

	identityv1.ApiKeyService_CreateApiKey_FullMethodName: manage,
	identityv1.ApiKeyService_ListApiKeys_FullMethodName:  manage,
	identityv1.ApiKeyService_RevokeApiKey_FullMethodName: manage,

	webhooksv1.WebhookService_CreateWebhook_FullMethodName:                 connect,
	webhooksv1.WebhookService_ListWebhooks_FullMethodName:                  connect,
	webhooksv1.WebhookService_GetWebhook_FullMethodName:                    connect,
	webhooksv1.WebhookService_UpdateWebhook_FullMethodName:                 connect,
	webhooksv1.WebhookService_TestWebhook_FullMethodName:                   connect,
	webhooksv1.WebhookService_DeleteWebhook_FullMethodName:                 connect,
	webhooksv1.WebhookService_RotateWebhookSecret_FullMethodName:           connect,
	webhooksv1.WebhookService_EnableWebhook_FullMethodName:                 connect,
	webhooksv1.WebhookService_ListWebhookDeliveries_FullMethodName:         connect,
	webhooksv1.WebhookService_ReplayWebhook_FullMethodName:                 connect,
	identityv1.EventCredentialService_CreateEventCredential_FullMethodName: manageEvents,
	identityv1.EventCredentialService_ListEventCredentials_FullMethodName:  manageEvents,
	identityv1.EventCredentialService_RevokeEventCredential_FullMethodName: manageEvents,

	domainv1.DomainService_ListDomains_FullMethodName:      appsRead,
	domainv1.DomainService_AddDomain_FullMethodName:        appsWrite,
	domainv1.DomainService_RemoveDomain_FullMethodName:     appsWrite,
	domainv1.DomainService_VerifyDomain_FullMethodName:     appsWrite,
	domainv1.DomainService_SetPrimaryDomain_FullMethodName: appsWrite,

	oauthv1.OAuthAppService_RegisterApp_FullMethodName:     manage,
	oauthv1.OAuthAppService_GetApp_FullMethodName:          manage,
	oauthv1.OAuthAppService_ListApps_FullMethodName:        manage,
	oauthv1.OAuthAppService_RotateAppSecret_FullMethodName: manage,
	oauthv1.OAuthAppService_DeleteApp_FullMethodName:       manage,
	oauthv1.OAuthAppService_DescribeToken_FullMethodName:   anybody,
	oauthv1.OAuthAppService_ListGrants_FullMethodName:      bearer,
	oauthv1.OAuthAppService_RevokeGrant_FullMethodName:     bearer,

	"/grpc.health.v1.Health/Check":                                   public,
	"/grpc.health.v1.Health/List":                                    public,
	"/grpc.health.v1.Health/Watch":                                   public,
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      public,
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": public,
}
