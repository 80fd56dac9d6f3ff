package routing

import (
	domainv1 "github.com/slipway-paas/slipway/gen/slipway/domain/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// domain is a name that an app's owner brought, served or not.
type domain struct{ deployment, host string }

// custom is a host by which verified domain it is served, and the sequence of the event
// that verified it.
type custom struct {
	by    string
	since uint64
}

// applyDomain folds in what became of a domain. What is wrong with the DNS or the
// certificate of a verified one does not take its route away: it may still be asked for.
func (f *Fold) applyDomain(rec eventstore.Recorded) (id string, hosts []string) {
	if added, ok := rec.Payload.(*domainv1.DomainAdded); ok {
		if _, again := f.domains[rec.Aggregate]; !again && added.GetName() != "" {
			f.domains[rec.Aggregate] = domain{deployment: added.GetDeploymentId(), host: subjects.HostKey(added.GetName())}
		}
		return "", nil
	}
	of, known := f.domains[rec.Aggregate]
	if !known {
		return "", nil
	}
	d := f.deployments[of.deployment]
	if d != nil && d.org != rec.Aggregate.Org {
		d = nil
	}
	switch rec.Payload.(type) {
	case *domainv1.DomainVerified:
		if d == nil || of.host == d.host {
			return "", nil
		}
		if d.custom[of.host].by == rec.Aggregate.ID {
			return "", nil
		}
		d.custom[of.host] = custom{by: rec.Aggregate.ID, since: rec.Sequence}
		f.index(of.host, d)
	case *domainv1.DomainRemoved, *domainv1.DomainLost:
		delete(f.domains, rec.Aggregate)
		if d == nil || d.custom[of.host].by != rec.Aggregate.ID {
			return "", nil
		}
		delete(d.custom, of.host)
		f.unindex(of.host, d)
	default:
		return "", nil
	}
	d.setHosts()
	d.sequence, d.cause, d.correlation = rec.Sequence, rec.ID, rec.Correlation
	return d.id, []string{of.host}
}
