package identity

import (
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/libs/access"
)

// people tells OAuth of accounts and members.
type people struct{ known *directory }

// Grantable implements oauth.People.
func (p people) Grantable(who *identityv1.Principal) []string {
	p.known.mu.RLock()
	defer p.known.mu.RUnlock()
	role := p.known.orgs[who.GetOrgId()].Members[who.GetOperatorId()].Role
	return access.Effective(access.Scopes(), role, p.known.operators[who.GetOperatorId()].Admin)
}

// PasswordEpoch implements oauth.People.
func (p people) PasswordEpoch(operatorID string) uint32 {
	p.known.mu.RLock()
	defer p.known.mu.RUnlock()
	return p.known.operators[operatorID].PasswordEpoch
}

// Stands implements oauth.People.
func (p people) Stands(operatorID, orgID string, epoch uint32) bool {
	p.known.mu.RLock()
	defer p.known.mu.RUnlock()
	operator := p.known.operators[operatorID]
	return operator.Exists() && operator.PasswordEpoch == epoch && access.ValidRole(p.known.orgs[orgID].Members[operatorID].Role)
}
