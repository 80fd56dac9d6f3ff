package subjects_test

import (
	"strings"
	"testing"

	"github.com/slipway-paas/slipway/libs/subjects"
)

// FuzzEverySubjectIsReadAsWritten: a subject that parses is exactly the one that its
// parts make, so that no text gets into another's place.
func FuzzEverySubjectIsReadAsWritten(f *testing.F) {
	for _, s := range []string{"evt.acme.deployment.1.StopRequested", "evt.acme.deployment.1", "evt.*.deployment.1.>", "evt._.claim.subdomain-0a.ClaimTaken",
		"evt....", "svc.env.node-1.i1", "svc.env.>.*", "svc.env..", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, subject string) {
		if a, kind, err := subjects.ParseEvent(subject); err == nil {
			if a.Event(kind) != subject || strings.ContainsAny(subject, "*> \r\n") {
				t.Fatalf("%q was read as %v, %s", subject, a, kind)
			}
		}
		if node, instance, err := subjects.ParseSecretsRequest(subject); err == nil {
			if subjects.SecretsRequest(node, instance) != subject {
				t.Fatalf("%q was read as %s, %s", subject, node, instance)
			}
		}
	})
}
