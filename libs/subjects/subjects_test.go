package subjects_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/slipway-paas/slipway/libs/subjects"
)

func TestAnEventSubjectIsReadBack(t *testing.T) {
	t.Parallel()
	a := subjects.Of("acme", subjects.Deployment, "0198-x")
	got, eventType, err := subjects.ParseEvent(a.Event("ContainerStarted"))
	if err != nil || got != a || eventType != "ContainerStarted" {
		t.Fatalf("read back as %v %s, %v", got, eventType, err)
	}
	if a.Filter() != "evt.acme.deployment.0198-x.>" {
		t.Fatalf("filter %s", a.Filter())
	}
}

func TestWhatWouldReachAnotherTenantIsRefused(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "*", ">", "a.b", "a b", "ä", strings.Repeat("x", 129), "a\n"} {
		if err := subjects.Of(bad, subjects.Deployment, "1").Validate(); !errors.Is(err, subjects.ErrInvalid) {
			t.Errorf("org %q: %v", bad, err)
		}
		if err := subjects.Of("acme", subjects.Deployment, bad).Validate(); !errors.Is(err, subjects.ErrInvalid) {
			t.Errorf("id %q: %v", bad, err)
		}
		if subjects.ValidToken(bad) {
			t.Errorf("%q is said to be a token", bad)
		}
	}
}

func TestAFilterStaysWithinItsOrg(t *testing.T) {
	t.Parallel()
	for want, parts := range map[string][4]string{
		"evt.acme.*.*.*":                           {"acme", "", "", ""},
		"evt.acme.deployment.*.*":                  {"acme", "deployment", "", ""},
		"evt.acme.deployment.d1.DeploymentRunning": {"acme", "deployment", "d1", "DeploymentRunning"},
		"evt.acme.*.*.DeploymentRunning":           {"acme", "", "", "DeploymentRunning"},
	} {
		if got, err := subjects.Within(parts[0], parts[1], parts[2], parts[3]); err != nil || got != want {
			t.Errorf("%v: got %s, %v", parts, got, err)
		}
	}
	for _, bad := range [][4]string{
		{"", "", "", ""}, {"*", "", "", ""}, {">", "", "", ""}, {subjects.Platform, "", "", ""}, {"acme", "*", "", ""}, {"acme", "deployment", ">", ""},
		{"acme", "deployment", "a.b", ""}, {"acme", "", "", "*"}, {"acme.deployment", "", "", ""},
	} {
		if got, err := subjects.Within(bad[0], bad[1], bad[2], bad[3]); !errors.Is(err, subjects.ErrInvalid) {
			t.Errorf("%v: got %s, %v", bad, got, err)
		}
	}
}

func TestSubjectsOfOtherKindsAreNoEvents(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"evt.a.b.c", "evt.a.b.c.d.e", "xvt.a.b.c.d", "evt.a.b.c.*", ""} {
		if _, _, err := subjects.ParseEvent(s); !errors.Is(err, subjects.ErrInvalid) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestASecretsRequestIsReadBack(t *testing.T) {
	t.Parallel()
	node, instance, err := subjects.ParseSecretsRequest(subjects.SecretsRequest("n1", "i1"))
	if err != nil || node != "n1" || instance != "i1" {
		t.Fatalf("%s %s %v", node, instance, err)
	}
	if _, _, err := subjects.ParseSecretsRequest("svc.env.n1"); !errors.Is(err, subjects.ErrInvalid) {
		t.Fatalf("a short one: %v", err)
	}
}
