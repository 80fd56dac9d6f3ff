package natsconn

import (
	"github.com/nats-io/nats-server/v2/server"

	"github.com/slipway-paas/slipway/libs/subjects"
)

// users are the server's users: each role's key with what that role needs.
func (k Keys) users() []*server.NkeyUser {
	return []*server.NkeyUser{
		{Nkey: k.public[RolePlatform]},
		{Nkey: k.public[RoleNode], Permissions: permissions(RoleNode, nodePublishes())},
		{Nkey: k.public[RoleEdge], Permissions: permissions(RoleEdge, edgePublishes())},
	}
}

func nodePublishes() []string {
	allow := []string{subjects.AllSecretsRequests, "$KV." + subjects.BucketNodes + ".*"}
	for _, fact := range []string{"ImagePulled", "ImagePullFailed", "ContainerStarted", "ContainerStartFailed", "ContainerExited", "ContainerRemoved"} {
		allow = append(allow, subjects.Of("*", subjects.Deployment, "*").Event(fact))
	}
	allow = append(allow, readsBucket(subjects.BucketDesired)...)
	return append(allow,
		"$JS.API.STREAM.INFO."+subjects.StreamEvents,
		"$JS.API.STREAM.INFO.KV_"+subjects.BucketNodes,
	)
}

func edgePublishes() []string {
	return append(readsBucket(subjects.BucketRoutes), subjects.AllEdgesApplied)
}

// readsBucket are the requests that reading and watching a bucket makes.
func readsBucket(bucket string) []string {
	stream := "KV_" + bucket
	return []string{
		"$JS.API.INFO",
		"$JS.API.STREAM.INFO." + stream,
		"$JS.API.DIRECT.GET." + stream,
		"$JS.API.DIRECT.GET." + stream + ".>",
		"$JS.API.STREAM.MSG.GET." + stream,
		"$JS.API.CONSUMER.CREATE." + stream,
		"$JS.API.CONSUMER.CREATE." + stream + ".>",
		"$JS.API.CONSUMER.INFO." + stream + ".>",
		"$JS.API.CONSUMER.DELETE." + stream + ".>",
		"$JS.API.CONSUMER.MSG.NEXT." + stream + ".>",
		"$JS.FC." + stream + ".>",
	}
}

func permissions(role Role, publishes []string) *server.Permissions {
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: publishes},
		Subscribe: &server.SubjectPermission{Allow: []string{role.inboxPrefix() + ".>"}},
	}
}
