package natsconn

import (
	"bytes"
	"encoding/json"
	"fmt"

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

// Authorization is the users and what each may do, as the value of "authorization"
// in the configuration of a NATS server that runs on its own.
func (k Keys) Authorization() (string, error) {
	type rule struct {
		Allow []string `json:"allow"`
	}
	type rules struct {
		Publish   rule `json:"publish"`
		Subscribe rule `json:"subscribe"`
	}
	type user struct {
		Nkey        string `json:"nkey"`
		Permissions *rules `json:"permissions,omitempty"`
	}
	var users []user
	for _, u := range k.users() {
		one := user{Nkey: u.Nkey}
		if u.Permissions != nil {
			one.Permissions = &rules{Publish: rule{u.Permissions.Publish.Allow}, Subscribe: rule{u.Permissions.Subscribe.Allow}}
		}
		users = append(users, one)
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	// The server does not read JSON's escapes of < and >.
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(map[string]any{"users": users}); err != nil {
		return "", fmt.Errorf("write the NATS users: %w", err)
	}
	return text.String(), nil
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
