package deployment

import (
	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	healthv1 "github.com/slipway-paas/slipway/gen/slipway/health/v1"
	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// startAttempts bounds how often a release that was never live may crash before
// its rollout fails.
const startAttempts = 3

// Desired is what nodes must run, or let go, because of this deployment: the
// values of VIEW_desired by key. An instance leaves it once its container is gone.
func Desired(s State) map[string]*nodev1.DesiredInstance {
	out := make(map[string]*nodev1.DesiredInstance, len(s.Instances))
	for _, i := range s.Instances {
		d := &nodev1.DesiredInstance{
			OrgId: s.Org, DeploymentId: s.ID, ReleaseId: i.ReleaseID, InstanceId: i.ID,
			NodeId: i.Node, ContainerName: i.Name,
			MemoryLimitMb: s.Tier.GetMemoryLimitMb(), CpuLimitMillicores: s.Tier.GetCpuLimitMillicores(),
			Deadlines: s.Latest.GetDeadlines(), DesiredState: nodev1.DesiredState_DESIRED_STATE_RUNNING,
			TraceParent: s.TraceParent, LastAttempt: i.Attempt, LastContainerId: i.ContainerID,
		}
		if r := s.release(i.ReleaseID); r != nil {
			d.Image, d.Port = r.GetImage(), r.GetPort()
			d.HasEnv = len(r.GetEnv().GetNames()) > 0
			d.Deadlines = r.GetDeadlines()
			d.Digest = r.GetDigest()
			if i.Moved || i.Added {
				// The tag may mean another image by now.
				d.Digest = r.Digest
			}
			if r == s.Next {
				d.MaxAttempts = startAttempts
			}
		}
		switch {
		case i.Retiring && i.Drain:
			d.DesiredState = nodev1.DesiredState_DESIRED_STATE_DRAINING
		case i.Retiring:
			d.DesiredState = nodev1.DesiredState_DESIRED_STATE_REMOVED
		}
		out[subjects.DesiredKey(i.Node, i.ID)] = d
	}
	return out
}

// Targets is what health must probe because of this deployment: the values of
// VIEW_instances by key.
func Targets(s State) map[string]*healthv1.Target {
	out := make(map[string]*healthv1.Target)
	for _, i := range s.Instances {
		r := s.release(i.ReleaseID)
		if r == nil || i.Retiring || i.Phase != PhaseStarted {
			continue
		}
		out[subjects.InstanceKey(s.Org, s.ID, i.ID)] = &healthv1.Target{
			OrgId: s.Org, DeploymentId: s.ID, ReleaseId: i.ReleaseID, InstanceId: i.ID,
			ContainerId: i.ContainerID, Attempt: i.Attempt, Address: i.Address,
			HealthCheck: r.GetHealthCheck(), Host: s.Host, Healthy: i.Healthy, TraceParent: s.TraceParent,
		}
	}
	return out
}

// Env returns the sealed environment of one of the instances that must run on the
// node; nil when there is no such instance there.
func Env(s State, node, instance string) *deploymentv1.SealedEnv {
	i := s.Instances[instance]
	if i == nil || i.Node != node || i.Retiring {
		return nil
	}
	r := s.release(i.ReleaseID)
	if r == nil {
		return nil
	}
	if r.GetEnv() == nil {
		return &deploymentv1.SealedEnv{}
	}
	return r.GetEnv()
}
