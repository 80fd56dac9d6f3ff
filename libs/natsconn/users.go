package natsconn

import (
	"fmt"
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
		if p := user.Permissions; p != nil {
			fmt.Fprintf(&b, "      permissions: {\n        publish: %s\n        subscribe: %s\n      }\n", allowed(p.Publish), allowed(p.Subscribe))
		}
		b.WriteString("    }\n")
	}
	b.WriteString("  ]\n}\n")
	return b.String()
}

func allowed(p *server.SubjectPermission) string {
	quoted := make([]string, len(p.Allow))
	for i, subject := range p.Allow {
		quoted[i] = "            \"" + subject + "\"" // quoted, for the server reads $ as a variable
	}
	return "{\n          allow: [\n" + strings.Join(quoted, "\n") + "\n          ]\n        }"
}
