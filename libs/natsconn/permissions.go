package natsconn

import (
	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/slipway-paas/slipway/libs/subjects"
)

// users are the server's users: the key of each role and node with what it needs.
func (k Keys) users() []*server.NkeyUser {
	users := []*server.NkeyUser{
		{Nkey: k.public[RolePlatform]},
		{Nkey: k.public[RoleEdge], Permissions: permissions(RoleEdge.inboxPrefix(""), edgePublishes())},
		subscriptions(k.public[RoleSubscriptions]),
	}
	for _, node := range k.Nodes() {
		users = append(users, &server.NkeyUser{Nkey: k.nodes[node], Permissions: permissions(RoleNode.inboxPrefix(node), nodePublishes(node))})
	}
	return users
}

// subscriptions may join as a leaf node only. It cannot be held to outsiders' consumers
// by name, as a token of a subject is matched whole or not at all.
func subscriptions(public string) *server.NkeyUser {
	reads := subjects.LeafConsumerAPI("*")
	return &server.NkeyUser{
		Nkey:                   public,
		AllowedConnectionTypes: map[string]struct{}{jwt.ConnectionTypeLeafnode: {}},
		Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: []string{reads.Info, reads.Next, reads.Ack}},
			Subscribe: &server.SubjectPermission{
				Allow: []string{subjects.LiveEvents, subjects.ServiceReplies},
				Deny:  []string{subjects.LivePlatform},
			},
		},
	}
}

// nodePublishes is what the node may send: questions about itself, its own heartbeat,
// and facts. Which deployment a fact is of is not held here: instances come and go.
func nodePublishes(node string) []string {
	allow := []string{subjects.SecretsRequest(node, "*"), subjects.OfKey(subjects.BucketNodes, node)}
	for _, fact := range []string{"ImagePulled", "ImagePullFailed", "ContainerStarted", "ContainerStartFailed", "ContainerExited", "ContainerRemoved"} {
		allow = append(allow, subjects.Of("*", subjects.Deployment, "*").Event(fact))
	}
	desired := "KV_" + subjects.BucketDesired
	return append(allow,
		"$JS.API.INFO",
		"$JS.API.STREAM.INFO."+desired,
		"$JS.API.STREAM.MSG.GET."+desired,
		// With its filter in the subject, which the server holds against the request.
		"$JS.API.CONSUMER.CREATE."+desired+".*."+subjects.OfKey(subjects.BucketDesired, subjects.DesiredOfNode(node)),
		"$JS.API.CONSUMER.INFO."+desired+".*",
		"$JS.API.CONSUMER.DELETE."+desired+".*",
		"$JS.API.CONSUMER.MSG.NEXT."+desired+".*",
		"$JS.FC."+desired+".>",
		"$JS.API.STREAM.INFO."+subjects.StreamEvents,
		"$JS.API.STREAM.INFO.KV_"+subjects.BucketNodes,
	)
}

func edgePublishes() []string {
	allow := []string{subjects.AllEdgesApplied, subjects.AllEdgeUpstreams, subjects.AllEdgeCertificates, subjects.AllAccessLogs, subjects.AllRequestSummaries, subjects.DNSChallengeRequests}
	allow = append(allow, readsBucket(subjects.BucketRoutes)...)
	for _, shared := range []string{subjects.BucketCertificates, subjects.BucketCertificateLocks} {
		allow = append(allow, readsBucket(shared)...)
		allow = append(allow, subjects.OfKey(shared, ">"))
	}
	return allow
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

func permissions(inboxes string, publishes []string) *server.Permissions {
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: publishes},
		Subscribe: &server.SubjectPermission{Allow: []string{inboxes + ".>"}},
	}
}
