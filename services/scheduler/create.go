package scheduler

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	billingv1 "github.com/slipway-paas/slipway/gen/slipway/billing/v1"
	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	"github.com/slipway-paas/slipway/libs/claims"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/rpc"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
	"github.com/slipway-paas/slipway/services/scheduler/request"
)

// sealTime bounds keeping a new data key.
const sealTime = 5 * time.Second

// create asks for a new deployment. A command that may have been given before always
// names the same one, and when that is there, it is what came of the command.
func (s *Service) create(ctx context.Context, p *identityv1.Principal, in *schedulerv1.CreateDeploymentRequest) (deployment.State, error) {
	command, id := rpc.CommandID(ctx), rpc.NewID(ctx, subjects.Deployment)
	if command == "" {
		return s.createAs(ctx, p, id, in)
	}
	done := func() (deployment.State, error) {
		before, _, err := s.handler.Written(ctx, subjects.Of(p.OrgId, subjects.Deployment, id), command)
		if err != nil {
			return deployment.State{}, fmt.Errorf("looking for an earlier attempt: %w", err)
		}
		return before.State, nil
	}
	if state, err := done(); err != nil || state.Exists() {
		return state, err
	}
	state, err := s.createAs(ctx, p, id, in)
	if err != nil {
		// An attempt that goes on beside this one has perhaps taken the names.
		if other, lookErr := done(); lookErr == nil && other.Exists() {
			return other, nil
		}
	}
	return state, err
}

// createAs validates, seals the environment and asks for the deployment of that id.
func (s *Service) createAs(ctx context.Context, p *identityv1.Principal, id string, in *schedulerv1.CreateDeploymentRequest) (deployment.State, error) {
	q := request.Request{Subdomain: in.Subdomain, Image: in.Image, Tier: in.Tier, Port: in.Port, CustomDomain: in.CustomDomain, Env: in.EnvVars}
	if s.closed.has(p.GetOrgId()) {
		return deployment.State{}, problem.Forbidden("The organization has been deleted.")
	}
	tier, err := s.tier(ctx, in.Tier)
	if err != nil {
		return deployment.State{}, err
	}
	if fields, err := s.faults(ctx, p.OrgId, q, tier); err != nil {
		return deployment.State{}, err
	} else if len(fields) > 0 {
		return deployment.State{}, problem.Validation(fields)
	}
	if limit := int(tier.MaxDeployments); limit > 0 {
		// Held until the new deployment counts, so that two at once do not both get in.
		s.limits.Lock()
		defer s.limits.Unlock()
		if s.fleet.Live(p.OrgId, tier.Slug) >= limit {
			return deployment.State{}, problem.Limit(fmt.Sprintf("Deployment limit reached: the tier %s allows %d. Destroy one first, or choose another tier.", tier.Slug, limit), 0)
		}
	}
	if err := s.deps.Store.Writable(); err != nil {
		// Before the key: its bucket is on the same disk, and could only say that it
		// does not answer.
		return deployment.State{}, readOnly(err)
	}
	custom, _ := s.config.rules().Domain(in.CustomDomain) // found to be one, or empty
	aggregate := subjects.Of(p.OrgId, subjects.Deployment, id)
	sealed, err := s.seal(ctx, aggregate, in.EnvVars)
	if err != nil {
		return deployment.State{}, err
	}
	event := &deploymentv1.DeploymentRequested{
		DeploymentId: id, OrgId: p.OrgId, OperatorId: p.OperatorId, AppId: p.AppId,
		Tier: &deploymentv1.Tier{Id: tier.Id, Slug: tier.Slug, MemoryLimitMb: tier.MemoryLimitMb,
			CpuLimitMillicores: tier.CpuLimitMillicores, CustomDomainAllowed: tier.CustomDomainAllowed},
		Subdomain: in.Subdomain, Host: in.Subdomain + "." + s.config.BaseDomain, CustomDomain: custom,
		Release: s.firstRelease(in, sealed),
	}
	state, err := s.handle(ctx, p, id, deployment.Create{Event: event})
	if err == nil || sealed == nil || problem.From(err).Code == problem.CodeUnavailable || rpc.CommandID(ctx) != "" {
		// When the log did not say whether it was written, or another attempt may yet
		// write it, the key may be needed.
		return state, err
	}
	if lost := s.deps.Seal.Destroy(context.WithoutCancel(ctx), aggregate); lost != nil {
		s.deps.Log.WarnContext(ctx, "the data key of a refused deployment is still there", "deployment", id, "error", lost)
	}
	return state, err
}

func (s *Service) firstRelease(in *schedulerv1.CreateDeploymentRequest, env *deploymentv1.SealedEnv) *deploymentv1.Release {
	port := uint32(request.DefaultPort)
	if in.Port != nil {
		port = uint32(*in.Port)
	}
	return &deploymentv1.Release{
		Id: uuid.Must(uuid.NewV7()).String(), Number: 1, Image: in.Image, Port: port, Env: env,
		HealthCheck: s.config.healthCheck(), Deadlines: s.config.deadlines(),
		ContainerName: containerName(in.Subdomain),
	}
}

// containerName is the subdomain with a random suffix, my-app-1f0c9a.
func containerName(subdomain string) string {
	var suffix [3]byte
	// crypto/rand.Read never fails.
	_, _ = rand.Read(suffix[:])
	return subdomain + "-" + hex.EncodeToString(suffix[:])
}

func (s *Service) seal(ctx context.Context, a subjects.Aggregate, env map[string]string) (*deploymentv1.SealedEnv, error) {
	if len(env) == 0 {
		return nil, nil
	}
	bounded, cancel := context.WithTimeout(ctx, sealTime)
	defer cancel()
	names, ciphertext, err := s.deps.Seal.Seal(bounded, a, env)
	if bounded.Err() != nil {
		return nil, problem.Unavailable("The store of data keys does not answer, so nothing was changed; try again in a moment.", time.Second)
	}
	if err != nil {
		return nil, fmt.Errorf("sealing the environment: %w", err)
	}
	return &deploymentv1.SealedEnv{Names: names, Ciphertext: ciphertext}, nil
}

// tier returns the tier of that slug, nil when there is none.
func (s *Service) tier(ctx context.Context, slug string) (*billingv1.Tier, error) {
	if slug == "" {
		return nil, nil
	}
	answer, err := s.deps.Tiers.GetTier(ctx, &billingv1.GetTierRequest{Slug: slug})
	if status.Code(err) == codes.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("asking for tier %q: %w", slug, err)
	}
	return answer.Tier, nil
}

// faults are all fields at fault: what the request shows, an unknown tier, names
// that others hold.
func (s *Service) faults(ctx context.Context, org string, q request.Request, tier *billingv1.Tier) ([]problem.Field, error) {
	fields := s.config.rules().Check(q, tier == nil || tier.CustomDomainAllowed)
	at := map[string]bool{}
	for _, f := range fields {
		at[f.Field] = true
	}
	if q.Tier != "" && tier == nil {
		fields = append(fields, problem.Field{Field: "tier", Message: fmt.Sprintf("there is no tier %q; GET /api/deploy/tiers lists them", q.Tier)})
	}
	if !at[claims.Subdomain] {
		claim, err := s.names.book.Load(ctx, subdomain(q.Subdomain))
		if err != nil {
			return nil, err
		}
		if claim.Holder != "" {
			fields = append(fields, takenFields(&claims.TakenError{Names: []claims.Name{subdomain(q.Subdomain)}})...)
		}
	}
	if q.CustomDomain != "" && !at[claims.CustomDomain] {
		name, _ := s.config.rules().Domain(q.CustomDomain)
		fault, err := s.takenDomain(ctx, org, name)
		if err != nil {
			return nil, err
		}
		if fault != "" {
			fields = append(fields, problem.Field{Field: claims.CustomDomain, Message: fault})
		}
	}
	return fields, nil
}

// takenDomain says why a custom domain cannot be had; empty when it can. What others
// have only added is nobody's yet.
func (s *Service) takenDomain(ctx context.Context, org, name string) (string, error) {
	mine, err := s.names.book.Load(ctx, claims.OrgsDomain(org, name))
	if err != nil {
		return "", err
	}
	if of, ok := s.domains.Find(mine.Holder); ok {
		app, _ := s.fleet.Get(of.Deployment)
		return fmt.Sprintf("%q is a domain of your app %q already; remove it there first", name, app.Subdomain), nil
	}
	owned, err := s.names.book.Load(ctx, customDomain(name))
	if err != nil {
		return "", err
	}
	if owned.Holder != "" || mine.Holder != "" {
		return fmt.Sprintf("%q is taken; choose another, or leave it out and add it to the app afterwards: a TXT record can prove that it is yours", name), nil
	}
	return "", nil
}
