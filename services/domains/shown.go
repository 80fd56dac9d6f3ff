package domains

import (
	"time"

	"golang.org/x/net/publicsuffix"
	"google.golang.org/protobuf/types/known/timestamppb"

	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	"github.com/slipway-paas/slipway/libs/domainname"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/domains/domain"
	"github.com/slipway-paas/slipway/services/domains/proof"
)

// shown is a domain as readers see it.
func (s *Service) shown(of domain.State) *domainv1.Domain {
	out := &domainv1.Domain{
		Id: of.ID, ApplicationId: of.DeploymentID, Domain: of.Name, DomainUnicode: domainname.Unicode(of.Name), IsPrimary: of.Primary,
		SslActive: of.Status == domain.Active && of.NotAfter.After(s.now()), CreatedAt: stamp(of.AddedAt),
		Status: string(of.Status), Reason: of.Reason, Code: of.Code, Records: s.records(of), VerifiedAt: stamp(of.VerifiedAt),
		NextCheckAt: stamp(s.plan.next(subjects.Of(of.Org, subjects.Domain, of.ID))),
	}
	if out.Code == "" && of.CertificateReason != "" {
		out.Code, out.Reason = domain.CertificateFailed, of.CertificateReason
	}
	return out
}

// records are what the name's owner is to make: names at the top of a zone cannot be
// aliases.
func (s *Service) records(of domain.State) []*domainv1.DNSRecord {
	var out []*domainv1.DNSRecord
	if top, err := publicsuffix.EffectiveTLDPlusOne(of.Name); err == nil && top == of.Name {
		for _, address := range s.config.addresses() {
			kind := "A"
			if address.Is6() {
				kind = "AAAA"
			}
			out = append(out, &domainv1.DNSRecord{Type: kind, Name: of.Name, Value: address.String()})
		}
		if len(out) == 0 {
			out = append(out, &domainv1.DNSRecord{Type: "ALIAS", Name: of.Name, Value: of.Target})
		}
	} else {
		out = append(out, &domainv1.DNSRecord{Type: "CNAME", Name: of.Name, Value: of.Target})
	}
	return append(out, &domainv1.DNSRecord{
		Type: "TXT", Name: proof.Record(of.Name), Value: of.Proof,
		Required: !of.Served() && (of.ProofNeeded || of.Code == domain.ProofMissing),
	})
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
