package domain_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	"github.com/slipway-paas/slipway/libs/decider/gwt"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/services/domains/domain"
)

type story = gwt.Story[domain.State, domain.Command]

var (
	add = domain.Add{ID: "d", Org: "acme", DeploymentID: "app", Name: "shop.example", Target: "shop.apps.test", Proof: "p", By: "op"}
	// expires is when certificates of these stories do.
	expires = gwt.Start().Add(90 * 24 * time.Hour)
)

func added() *domainv1.DomainAdded {
	return &domainv1.DomainAdded{DomainId: "d", OrgId: "acme", DeploymentId: "app", Name: "shop.example", Target: "shop.apps.test", Proof: "p", InitiatedBy: "op"}
}

func verified() *domainv1.DomainVerified {
	return &domainv1.DomainVerified{Method: domain.ByCNAME, CheckedAt: timestamppb.New(gwt.Start())}
}

func missed(code string, next *timestamppb.Timestamp) *domainv1.DomainCheckFailed {
	return &domainv1.DomainCheckFailed{Code: code, Reason: "because", NextCheckAt: next}
}

func certified() *domainv1.CertificateObtained {
	return &domainv1.CertificateObtained{Issuer: "ca", NotAfter: timestamppb.New(expires), EdgeId: "e1"}
}

func given(t *testing.T, events ...proto.Message) *story {
	t.Helper()
	return gwt.New(t, domain.Decider()).Given(events...)
}

// at is when the n-th thing of a story happens, or is asked.
func at(n int) time.Time { return gwt.Start().Add(time.Duration(n-1) * time.Second) }

func is(t *testing.T, s *story, want domain.Status) *story {
	t.Helper()
	if got := s.State().Status; got != want {
		t.Errorf("the domain is %s, wanted %s", got, want)
	}
	return s
}

func TestADomainsLife(t *testing.T) {
	t.Parallel()
	s := is(t, given(t).When(add).Then(added()), domain.Pending)
	s = s.When(domain.Found{Method: domain.ByCNAME}).Then(&domainv1.DomainVerified{Method: domain.ByCNAME, CheckedAt: timestamppb.New(at(2))})
	s = is(t, s, domain.Verified).When(domain.Certified{Issuer: "ca", NotAfter: expires, Edge: "e1"}).Then(certified())
	s = is(t, s, domain.Active).When(domain.Remove{By: "op"}).Then(&domainv1.DomainRemoved{InitiatedBy: "op"})
	is(t, s, domain.Gone)
}

func TestWhatIsNotThereOrNotWholeIsRefused(t *testing.T) {
	t.Parallel()
	given(t).When(domain.Add{ID: "d", Org: "acme", Name: "shop.example"}).ThenErrorIs(domain.ErrMalformed)
	given(t, added()).When(add).ThenErrorIs(domain.ErrExists)
	given(t, added()).When(domain.Certified{}).ThenErrorIs(domain.ErrUnverified)
	given(t, added()).When(domain.Uncertified{}).ThenErrorIs(domain.ErrUnverified)
	for _, end := range []proto.Message{nil, &domainv1.DomainRemoved{}, &domainv1.DomainLost{}} {
		for _, c := range []domain.Command{domain.Found{}, domain.Missed{}, domain.Check{}, domain.Certified{}, domain.Uncertified{}, domain.SetPrimary{}, domain.Remove{}} {
			if end == nil {
				given(t).When(c).ThenErrorIs(domain.ErrUnknown)
				continue
			}
			given(t, added(), end).When(c).ThenErrorIs(domain.ErrUnknown)
		}
	}
}

func TestOnlyChangesAreNoted(t *testing.T) {
	t.Parallel()
	later := timestamppb.New(at(60))
	again := domain.Missed{Code: domain.NotFound, Reason: "because", Attempt: 2, Next: at(60)}
	given(t, added()).When(again).Then(&domainv1.DomainCheckFailed{
		Code: domain.NotFound, Reason: "because", Attempt: 2, CheckedAt: timestamppb.New(at(2)), NextCheckAt: later})
	given(t, added(), missed(domain.NotFound, later)).When(again).ThenNothing()
	given(t, added(), missed(domain.DNSUnavailable, later)).When(again).
		Then(&domainv1.DomainCheckFailed{Code: domain.NotFound, Reason: "because", Attempt: 2, CheckedAt: timestamppb.New(at(3)), NextCheckAt: later})
	given(t, added(), verified()).When(domain.Found{Method: domain.ByTXT}).ThenNothing()
	given(t, added(), verified(), certified()).When(domain.Certified{Issuer: "ca", NotAfter: expires, Edge: "e2"}).ThenNothing()
	given(t, added(), verified(), certified()).When(domain.Certified{Issuer: "ca", NotAfter: expires.Add(time.Hour), Edge: "e1"}).
		Then(&domainv1.CertificateObtained{Issuer: "ca", NotAfter: timestamppb.New(expires.Add(time.Hour)), EdgeId: "e1"})
	refused := &domainv1.CertificateFailed{Reason: "rate limited", RetryAt: later, EdgeId: "e1"}
	given(t, added(), verified()).When(domain.Uncertified{Reason: "rate limited", RetryAt: at(60), Edge: "e1"}).Then(refused)
	given(t, added(), verified(), refused).When(domain.Uncertified{Reason: "rate limited", RetryAt: at(90), Edge: "e2"}).ThenNothing()
	is(t, given(t, added(), verified(), certified(), refused), domain.Active)
	given(t, added(), verified(), refused).When(domain.Certified{Issuer: "ca", NotAfter: expires, Edge: "e1"}).Then(certified())
}

func TestADomainIsGivenUpAndLookedAtAgainWhenAsked(t *testing.T) {
	t.Parallel()
	over := given(t, added(), missed(domain.NotFound, timestamppb.New(at(60)))).
		When(domain.Missed{Code: domain.NotFound, Reason: "because"}).
		Then(&domainv1.DomainCheckFailed{Code: domain.NotFound, Reason: "because", CheckedAt: timestamppb.New(at(3))})
	is(t, over, domain.Failed).When(domain.Missed{Code: domain.Loops}).ThenNothing()
	again := over.When(domain.Check{By: "op"}).Then(&domainv1.DomainCheckRequested{InitiatedBy: "op"})
	if got := is(t, again, domain.Pending).State().Since; !got.Equal(at(4)) {
		t.Errorf("it is looked at from %s on, wanted %s", got, at(4))
	}
	// Who asks again and again is noted once a minute.
	again.When(domain.Check{By: "op"}).ThenNothing()
	is(t, again.When(domain.Found{Method: domain.ByTXT}).Then(&domainv1.DomainVerified{Method: domain.ByTXT, CheckedAt: timestamppb.New(at(5))}), domain.Verified)
	given(t, added()).At(at(90)).When(domain.Check{By: "op"}).Then(&domainv1.DomainCheckRequested{InitiatedBy: "op"})
}

func TestAVerifiedDomainThatLeadsElsewhereStaysVerifiedAndSaysSo(t *testing.T) {
	t.Parallel()
	s := given(t, added(), verified(), certified())
	s.When(domain.Missed{Code: domain.DNSUnavailable}).ThenNothing()
	s.When(domain.Check{By: "op"}).ThenNothing()
	astray := s.When(domain.Missed{Code: domain.ResolvesElsewhere, Reason: "because"}).
		Then(&domainv1.DomainCheckFailed{Code: domain.ResolvesElsewhere, Reason: "because", CheckedAt: timestamppb.New(at(4))})
	is(t, astray, domain.Active).When(domain.Missed{Code: domain.ResolvesElsewhere, Reason: "another"}).ThenNothing()
	back := astray.When(domain.Found{Method: domain.ByAddress}).Then(&domainv1.DomainVerified{Method: domain.ByAddress, CheckedAt: timestamppb.New(at(5))})
	if got := is(t, back, domain.Active).State(); got.Code != "" || got.Method != domain.ByCNAME || !got.VerifiedAt.Equal(gwt.Start()) {
		t.Errorf("back, it is %+v", got)
	}
}

func TestTheLaterOfTwoPrimaryDomainsCounts(t *testing.T) {
	t.Parallel()
	first := added()
	first.Primary = true
	if got := given(t, first).State(); !got.Primary || got.PrimarySince != 1 {
		t.Errorf("added as primary, it is %+v", got)
	}
	set := given(t, first, &domainv1.PrimaryDomainUnset{}).When(domain.SetPrimary{By: "op"}).Then(&domainv1.PrimaryDomainSet{InitiatedBy: "op"})
	if got := set.State(); !got.Primary || got.PrimarySince != 3 {
		t.Errorf("set as primary, it is %+v", got)
	}
	if got := given(t, first, &domainv1.DomainLost{Reason: "proved by another"}).State(); got.Primary || got.Reason != "proved by another" {
		t.Errorf("lost, it is %+v", got)
	}
}

// An event that is added to the schema must be thought about here.
func TestEveryEventOfTheSchemaHasAFold(t *testing.T) {
	t.Parallel()
	samples := map[protoreflect.Name]proto.Message{
		"DomainAdded": added(), "DomainVerified": verified(), "DomainCheckFailed": missed(domain.Loops, nil), "DomainCheckRequested": &domainv1.DomainCheckRequested{},
		"CertificateObtained": certified(), "CertificateFailed": &domainv1.CertificateFailed{Reason: "no"},
		"PrimaryDomainSet": &domainv1.PrimaryDomainSet{}, "PrimaryDomainUnset": &domainv1.PrimaryDomainUnset{},
		"DomainLost": &domainv1.DomainLost{}, "DomainRemoved": &domainv1.DomainRemoved{},
	}
	stories := [][]proto.Message{nil, {added()}, {added(), missed(domain.NotFound, nil)}, {added(), verified()}, {added(), &domainv1.PrimaryDomainSet{}}}
	messages := domainv1.File_slipway_domain_v1_events_proto.Messages()
	for i := range messages.Len() {
		name := messages.Get(i).Name()
		folded := false
		for _, s := range stories {
			before := given(t, s...).State()
			folded = folded || samples[name] != nil && before != domain.Evolve(before, eventstore.Recorded{Sequence: 9, Event: eventstore.Event{Payload: samples[name], Time: at(9)}})
		}
		if !folded {
			t.Errorf("%s changes no state in any story: give it a fold", name)
		}
	}
}

func TestLooksComeQuicklyAtFirstThenSlowerAndEnd(t *testing.T) {
	t.Parallel()
	const giveUp = 72 * time.Hour
	s := given(t, added()).State()
	now, looks, inFirstMinutes, longest := s.Since, 0, 0, time.Duration(0)
	for looks < 1000 {
		next := domain.NextCheck(s, now, giveUp)
		if next.IsZero() {
			break
		}
		longest = max(longest, next.Sub(now))
		now = next
		looks++
		if now.Sub(s.Since) <= 5*time.Minute {
			inFirstMinutes++
		}
	}
	if looks < 60 || looks > 200 || inFirstMinutes < 10 || longest > 70*time.Minute || now.Sub(s.Since) < giveUp {
		t.Errorf("%d looks, %d in the first five minutes, at most %s apart, the last after %s", looks, inFirstMinutes, longest, now.Sub(s.Since))
	}
	if other := (domain.State{ID: "another", Since: s.Since}); domain.NextCheck(other, s.Since, giveUp).Equal(domain.NextCheck(s, s.Since, giveUp)) {
		t.Error("two domains are looked at at the same moment")
	}
}
