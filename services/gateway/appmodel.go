package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	appsv1 "github.com/slipway-paas/slipway/gen/slipway/apps/v1"
	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/services/gateway/authn"
	"github.com/slipway-paas/slipway/services/gateway/statusview"
)

// web is the only process type there is yet.
const web = "web"

// appModelServer is the app dialect, /api/v1/apps: it translates, and decides nothing.
type appModelServer struct {
	appsv1.UnimplementedAppServiceServer
	scheduler schedulerv1.SchedulerServiceClient
	view      *statusview.View
	log       *slog.Logger
}

func (s *appModelServer) ListProcesses(ctx context.Context, in *appsv1.ListProcessesRequest) (*appsv1.ListProcessesResponse, error) {
	d, err := s.app(ctx, in.GetName())
	if err != nil {
		return nil, err
	}
	return &appsv1.ListProcessesResponse{Processes: processes(d)}, nil
}

func (s *appModelServer) ScaleProcesses(ctx context.Context, in *appsv1.ScaleProcessesRequest) (*appsv1.ScaleProcessesResponse, error) {
	d, err := s.app(ctx, in.GetName())
	if err != nil {
		return nil, err
	}
	if faults := processFaults(in.GetProcesses()); len(faults) > 0 {
		return nil, problem.Validation(faults)
	}
	out, err := relay(ctx, s.log, "scale an app", s.scheduler.ScaleDeployment, &schedulerv1.ScaleDeploymentRequest{
		Principal: authn.Principal(ctx), Id: d.GetId(), Count: int64(in.GetProcesses()[web])})
	if err != nil {
		return nil, err
	}
	s.wrote(out.GetDeployment())
	return &appsv1.ScaleProcessesResponse{Processes: processes(out.GetDeployment())}, nil
}

func (s *appModelServer) ListReleases(ctx context.Context, in *appsv1.ListReleasesRequest) (*appsv1.ListReleasesResponse, error) {
	d, err := s.app(ctx, in.GetName())
	if err != nil {
		return nil, err
	}
	releases, err := s.releases(ctx, d)
	if err != nil {
		return nil, err
	}
	res := &appsv1.ListReleasesResponse{}
	for _, r := range releases {
		res.Releases = append(res.Releases, appRelease(r))
	}
	return res, nil
}

func (s *appModelServer) RollbackApp(ctx context.Context, in *appsv1.RollbackAppRequest) (*appsv1.RollbackAppResponse, error) {
	d, err := s.app(ctx, in.GetName())
	if err != nil {
		return nil, err
	}
	command := &schedulerv1.RollbackDeploymentRequest{Principal: authn.Principal(ctx), Id: d.GetId()}
	if in.Version != nil {
		number := int64(in.GetVersion())
		command.ReleaseNumber = &number
	}
	out, err := relay(ctx, s.log, "roll an app back", s.scheduler.RollbackDeployment, command)
	if err != nil {
		return nil, err
	}
	s.wrote(out.GetDeployment())
	releases, err := s.releases(ctx, out.GetDeployment())
	if err != nil {
		return nil, err
	}
	n := slices.IndexFunc(releases, func(r *schedulerv1.Release) bool { return r.GetNumber() == out.GetDeployment().GetReleaseNumber() })
	if n < 0 {
		return nil, fmt.Errorf("release %d of %s is not in its history", out.GetDeployment().GetReleaseNumber(), d.GetId())
	}
	return &appsv1.RollbackAppResponse{Release: appRelease(releases[n])}, nil
}

// app is the deployment that a name stands for.
func (s *appModelServer) app(ctx context.Context, name string) (*schedulerv1.Deployment, error) {
	out, err := relay(ctx, s.log, "find an app", s.scheduler.ResolveApp, &schedulerv1.ResolveAppRequest{Principal: authn.Principal(ctx), App: name})
	return out.GetDeployment(), err
}

func (s *appModelServer) releases(ctx context.Context, d *schedulerv1.Deployment) ([]*schedulerv1.Release, error) {
	out, err := relay(ctx, s.log, "list releases", s.scheduler.ListReleases, &schedulerv1.ListReleasesRequest{Principal: authn.Principal(ctx), Id: d.GetId()})
	return out.GetReleases(), err
}

// wrote has the status poll see what the caller has changed.
func (s *appModelServer) wrote(d *schedulerv1.Deployment) { s.view.Wrote(d.GetId(), d.GetSequence()) }

// processFaults are process types that no app has. Counts the scheduler judges.
func processFaults(counts map[string]int32) []problem.Field {
	if len(counts) == 0 {
		return []problem.Field{{Field: "processes", Message: `is missing; say how many of which, like {"web": 2}`}}
	}
	var faults []problem.Field
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		if kind != web && len(faults) < 10 {
			faults = append(faults, problem.Field{Field: "processes." + cutName(kind), Message: "there is no such process type; an app has web"})
		}
	}
	return faults
}

// cutName keeps what a client sent short in what it is told.
func cutName(name string) string {
	if r := []rune(name); len(r) > 32 {
		return string(r[:32]) + "…"
	}
	return name
}

func processes(d *schedulerv1.Deployment) []*appsv1.Process {
	return []*appsv1.Process{{Type: web, Count: d.GetInstances(), Status: processStatus(d)}}
}

func processStatus(d *schedulerv1.Deployment) string {
	switch {
	case d.GetStatus() == statusview.Stopped || d.GetStatus() == statusview.Destroyed:
		return "stopped"
	case d.GetInstancesHealthy() >= d.GetInstances():
		return "running"
	case d.GetInstancesHealthy() > 0:
		return "degraded"
	case d.GetDeployedAt() == nil:
		return "starting"
	}
	return "down"
}

func appRelease(r *schedulerv1.Release) *appsv1.Release {
	return &appsv1.Release{Version: r.GetNumber(), Image: r.GetImage(), ConfigVersion: fmt.Sprintf("v%d", r.GetConfigNumber()),
		Status: r.GetStatus(), CreatedAt: millis(r.GetCreatedAt()), CreatedBy: r.GetCreatedBy()}
}
