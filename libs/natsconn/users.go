package natsconn

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
)

// Users is the part of a NATS server's configuration file that lets the platform's
// roles connect, each with what it needs, as the embedded server does. It holds
// public keys only.
func (k Keys) Users() string {
	var b strings.Builder
	b.WriteString("authorization {\n  users: [\n")
	for _, user := range k.users() {
		fmt.Fprintf(&b, "    {\n      nkey: %s\n", user.Nkey)
		if len(user.AllowedConnectionTypes) > 0 {
			fmt.Fprintf(&b, "      allowed_connection_types: [%s]\n", strings.Join(slices.Sorted(maps.Keys(user.AllowedConnectionTypes)), ", "))
		}
		if p := user.Permissions; p != nil {
			fmt.Fprintf(&b, "      permissions: {\n        publish: %s\n        subscribe: %s\n      }\n", allowed(p.Publish), allowed(p.Subscribe))
		}
		b.WriteString("    }\n")
	}
	b.WriteString("  ]\n}\n")
	return b.String()
}

func allowed(p *server.SubjectPermission) string {
	text := "{\n          allow: " + list(p.Allow)
	if len(p.Deny) > 0 {
		text += "\n          deny: " + list(p.Deny)
	}
	return text + "\n        }"
}

func list(all []string) string {
	quoted := make([]string, len(all))
	for i, subject := range all {
		quoted[i] = "            \"" + subject + "\"" // quoted, for the server reads $ as a variable
	}
	return "[\n" + strings.Join(quoted, "\n") + "\n          ]"
}
