package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	deploymentv1 "github.com/slipway-paas/slipway/gen/slipway/deployment/v1"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// active is how many deployments' journeys are under way at a time.
const active = 200

// journeys make up a log as a platform would have it after years: deployments that are
// made, restarted, crash, and are mostly destroyed in the end, many at a time.
type journeys struct {
	random *rand.Rand
	under  []*journey
	made   int
	now    time.Time
}

type journey struct {
	aggregate subjects.Aggregate
	left      []proto.Message
}

func newJourneys() *journeys {
	j := &journeys{random: rand.New(rand.NewPCG(7, 7)), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	for range active {
		j.under = append(j.under, j.begin())
	}
	return j
}

// next is the log's next event.
func (j *journeys) next() (subjects.Aggregate, proto.Message, time.Time) {
	i := j.random.IntN(len(j.under))
	if len(j.under[i].left) == 0 {
		j.under[i] = j.begin()
	}
	one := j.under[i]
	e := one.left[0]
	one.left = one.left[1:]
	j.now = j.now.Add(137 * time.Millisecond)
	return one.aggregate, e, j.now
}

func (j *journeys) begin() *journey {
	j.made++
	id := fmt.Sprintf("0198f000-0000-7000-8000-%012x", j.made)
	one := &journey{aggregate: subjects.Of(fmt.Sprintf("org%d", j.made%40), subjects.Deployment, id)}
	subdomain := fmt.Sprintf("app-%d", j.made)
	number := 1
	release := j.release(id, subdomain, number)
	say := func(events ...proto.Message) { one.left = append(one.left, events...) }
	say(&deploymentv1.DeploymentRequested{
		DeploymentId: id, OrgId: one.aggregate.Org, OperatorId: id[:30] + "operat", AppId: id[:30] + "theapp",
		Tier:      &deploymentv1.Tier{Id: "buddo-starter", Slug: "buddo-starter", MemoryLimitMb: 256, CpuLimitMillicores: 250},
		Subdomain: subdomain, Host: subdomain + ".apps.example.com", Release: release,
	})
	instance := j.rollout(say, release, "")
	for range j.random.IntN(3) {
		if j.random.IntN(4) == 0 {
			j.crash(say, release, instance)
			continue
		}
		number++
		release = j.release(id, subdomain, number)
		say(&deploymentv1.RestartRequested{Release: release, InitiatedBy: id[:30] + "theapp"})
		instance = j.rollout(say, release, instance)
	}
	if j.random.IntN(10) > 0 {
		say(&deploymentv1.DestroyRequested{InitiatedBy: id[:30] + "theapp"}, &deploymentv1.RouteRemoved{Hosts: []string{subdomain + ".apps.example.com"}})
		j.remove(say, release.Id, instance)
		say(&deploymentv1.DeploymentDestroyed{})
	}
	return one
}

func (j *journeys) release(id, subdomain string, number int) *deploymentv1.Release {
	return &deploymentv1.Release{
		Id: fmt.Sprintf("%s-%04x", id[:31], j.random.IntN(1<<16)), Number: uint32(number), Image: "ghcr.io/acme/" + subdomain + ":1.0", Port: 3000,
		Env:           &deploymentv1.SealedEnv{Names: []string{"DATABASE_URL", "TOKEN"}, Ciphertext: make([]byte, 180)},
		HealthCheck:   &deploymentv1.HealthCheck{Path: "/", Interval: durationpb.New(10 * time.Second), Timeout: durationpb.New(5 * time.Second), UnhealthyAfter: 3},
		ContainerName: fmt.Sprintf("%s-%08x", subdomain, number),
		Deadlines: &deploymentv1.Deadlines{Placement: durationpb.New(24 * time.Hour), Start: durationpb.New(5 * time.Minute), Healthy: durationpb.New(time.Minute),
			Stop: durationpb.New(time.Minute), Drain: durationpb.New(5 * time.Second), Grace: durationpb.New(10 * time.Second)},
	}
}

const aContainer = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

// rollout takes a release live, in place of the former instance.
func (j *journeys) rollout(say func(...proto.Message), r *deploymentv1.Release, former string) (instance string) {
	instance = fmt.Sprintf("%s-%s", r.Id[:18], r.ContainerName)
	node := fmt.Sprintf("node-%d", j.random.IntN(8))
	say(
		&deploymentv1.DeploymentScheduled{ReleaseId: r.Id, Placements: []*deploymentv1.Placement{{InstanceId: instance, NodeId: node, ContainerName: r.ContainerName}}},
		&deploymentv1.ImagePulled{ReleaseId: r.Id, InstanceId: instance, NodeId: node, Image: r.Image, Digest: "sha256:" + aContainer, Took: durationpb.New(time.Second)},
		&deploymentv1.ContainerStarted{ReleaseId: r.Id, InstanceId: instance, NodeId: node, ContainerId: aContainer, Address: "10.88.0.2:3000", Attempt: 1, StartedAt: timestamppb.New(j.now)},
		&deploymentv1.InstanceHealthy{ReleaseId: r.Id, InstanceId: instance, ContainerId: aContainer, Attempt: 1, CheckedAt: timestamppb.New(j.now)},
		&deploymentv1.RouteBound{ReleaseId: r.Id, Hosts: []string{r.ContainerName + ".apps.example.com"}, InstanceIds: []string{instance}, Revision: 7},
		&deploymentv1.DeploymentRunning{ReleaseId: r.Id},
	)
	if former != "" {
		j.remove(say, r.Id, former)
	}
	return instance
}

func (j *journeys) remove(say func(...proto.Message), release, instance string) {
	say(
		&deploymentv1.ContainerExited{ReleaseId: release, InstanceId: instance, ContainerId: aContainer, ExitCode: 143, Attempt: 1, ExitedAt: timestamppb.New(j.now)},
		&deploymentv1.ContainerRemoved{ReleaseId: release, InstanceId: instance, ContainerId: aContainer},
	)
}

func (j *journeys) crash(say func(...proto.Message), r *deploymentv1.Release, instance string) {
	say(
		&deploymentv1.ContainerExited{ReleaseId: r.Id, InstanceId: instance, ContainerId: aContainer, ExitCode: 1, Attempt: 1,
			LastLines: []string{"listening on 3000", "panic: out of luck"}, ExitedAt: timestamppb.New(j.now), RestartAt: timestamppb.New(j.now)},
		&deploymentv1.ContainerStarted{ReleaseId: r.Id, InstanceId: instance, ContainerId: aContainer, Address: "10.88.0.2:3000", Attempt: 2, StartedAt: timestamppb.New(j.now)},
		&deploymentv1.InstanceHealthy{ReleaseId: r.Id, InstanceId: instance, ContainerId: aContainer, Attempt: 2, CheckedAt: timestamppb.New(j.now)},
	)
}
