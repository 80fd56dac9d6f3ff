// Package subjects is the only place that builds or parses NATS names: event
// subjects, streams, key-value buckets and their keys, and request subjects.
package subjects

import (
	"errors"
	"fmt"
	"strings"
)

// Streams and key-value buckets of the platform.
const (
	// StreamEvents holds every event of every tenant in one global order.
	StreamEvents = "EVENTS"
	// StreamProbes keeps the last probe result of each instance, in memory.
	StreamProbes = "PROBES"
	// StreamDeliveries keeps the last state of each delivery to a webhook.
	StreamDeliveries = "DELIVERIES"
	// StreamAccessLogs keeps what edges served of late, request by request, in memory.
	StreamAccessLogs = "ACCESSLOGS"
	// StreamRequestSummaries keeps sums of the same, in memory.
	StreamRequestSummaries = "REQUESTSUMMARIES"

	// BucketDesired says what each node must run; key DesiredKey.
	BucketDesired = "VIEW_desired"
	// BucketInstances says what health must probe; key InstanceKey.
	BucketInstances = "VIEW_instances"
	// BucketRoutes sends hosts to instances; key HostKey.
	BucketRoutes = "VIEW_routes"
	// BucketNodes holds node heartbeats, expiring; key is the node id.
	BucketNodes = "VIEW_nodes"
	// BucketKeys holds wrapped data keys; key DataKey.
	BucketKeys = "KEYS"
	// BucketRates holds what gateways counted of each limited caller; keys are hashes.
	BucketRates = "RATES"
	// BucketAnswers holds the answers to requests that had an Idempotency-Key; key
	// AnswerKey.
	BucketAnswers = "ANSWERS"
	// BucketProviders holds sealed credentials for services outside; keys are the
	// providers' names.
	BucketProviders = "PROVIDERS"
	// BucketCertificates holds what edges share to serve HTTPS, sealed; key CertificateKey.
	BucketCertificates = "CERTIFICATES"
	// BucketCertificateLocks holds which edge is getting what, expiring; key CertificateKey.
	BucketCertificateLocks = "CERTIFICATE_LOCKS"
)

// Platform is the org token of what belongs to no tenant: name claims, operators and
// their sessions.
const Platform = "_"

// Kinds of aggregate.
const (
	Deployment = "deployment"
	Claim      = "claim"
	Operator   = "operator"
	Session    = "session"
	Org        = "org"
	APIKey     = "apikey"
	OAuthApp   = "oauthapp"
	Grant      = "grant"
	Device     = "device"
	Node       = "node"
	Webhook    = "webhook"
	Domain     = "domain"

	// EventCredential is what a NATS client outside reads an org's events with.
	EventCredential = "eventcredential"
	DNSRecord       = "dnsrecord"
	Tunnel          = "tunnel"
	// Provider is what the platform holds credentials of; it has a data key and no events.
	Provider = "provider"
)

// TenantKinds are the kinds of aggregate that an org's own events are of.
func TenantKinds() []string {
	return []string{Deployment, Org, APIKey, OAuthApp, Grant, Operator, Webhook, Domain, DNSRecord, EventCredential}
}

// AllEvents is the filter that matches every event.
const AllEvents = "evt.>"

// AllProbes matches every probe result.
const AllProbes = "probe.>"

// AllDeliveries matches every delivery to a webhook.
const AllDeliveries = "delivery.>"

// AllAccessLogs matches the batches of every app's access log.
const AllAccessLogs = "log.router.>"

// AllRequestSummaries matches the sums of every app's requests.
const AllRequestSummaries = "metric.router.>"

// AllEdgesApplied matches what every edge says of its route table.
const AllEdgesApplied = "edge.applied.*"

// AllEdgeCertificates matches what every edge says of getting certificates.
const AllEdgeCertificates = "edge.certificate.*"

// AllEdgeUpstreams matches what every edge says of instances that fail.
const AllEdgeUpstreams = "edge.upstream.*"

// DNSChallengeRequests is where edges ask for the TXT records of ACME's challenges.
const DNSChallengeRequests = "svc.dns.challenge"

// AllSecretsRequests matches every node's request for an instance's environment.
const AllSecretsRequests = "svc.env.*.*"

// ErrInvalid is returned for a name that cannot be part of a subject.
var ErrInvalid = errors.New("not usable in a subject")

// Aggregate names one event stream: an aggregate of a kind in an org.
type Aggregate struct {
	Org  string
	Kind string
	ID   string
}

// Of returns the deployment, claim, … of that org and id.
func Of(org, kind, id string) Aggregate { return Aggregate{Org: org, Kind: kind, ID: id} }

// Validate returns ErrInvalid when a part is empty or holds a character that NATS
// gives a meaning to.
func (a Aggregate) Validate() error {
	for _, t := range [...]string{a.Org, a.Kind, a.ID} {
		if err := token(t); err != nil {
			return err
		}
	}
	return nil
}

// Filter matches the aggregate's events and no others. Expected sequences are
// held against exactly this text.
func (a Aggregate) Filter() string { return "evt." + a.Org + "." + a.Kind + "." + a.ID + ".>" }

// Event is the subject of the aggregate's event of that type.
func (a Aggregate) Event(eventType string) string {
	return "evt." + a.Org + "." + a.Kind + "." + a.ID + "." + eventType
}

func (a Aggregate) String() string { return a.Kind + "/" + a.ID }

// ParseEvent splits an event's subject.
func ParseEvent(subject string) (a Aggregate, eventType string, err error) {
	parts := strings.Split(subject, ".")
	if len(parts) != 5 || parts[0] != "evt" {
		return Aggregate{}, "", fmt.Errorf("%q is no event subject: %w", subject, ErrInvalid)
	}
	a = Aggregate{Org: parts[1], Kind: parts[2], ID: parts[3]}
	if err := a.Validate(); err != nil {
		return Aggregate{}, "", err
	}
	return a, parts[4], token(parts[4])
}

// KindFilter matches every event of one kind of aggregate, in every org.
func KindFilter(kind string) string { return "evt.*." + kind + ".>" }

// TypeFilter matches every event of one type of one kind of aggregate, in every org.
func TypeFilter(kind, eventType string) string { return "evt.*." + kind + ".*." + eventType }

// OrgFilter matches every event of one kind of aggregate in one org.
func OrgFilter(org, kind string) string { return "evt." + org + "." + kind + ".>" }

// Within matches the events of one type of the aggregates with that kind and id in one
// org; an empty kind, id or type is any. Errors: ErrInvalid, also for the platform's own
// org, which is no tenant's.
func Within(org, kind, id, eventType string) (string, error) {
	if org == Platform {
		return "", fmt.Errorf("%q is no tenant: %w", org, ErrInvalid)
	}
	parts := []string{"evt", org, kind, id, eventType}
	for i, part := range parts[1:] {
		if part == "" && i > 0 {
			parts[i+1] = "*"
			continue
		}
		if err := token(part); err != nil {
			return "", err
		}
	}
	return strings.Join(parts, "."), nil
}

// AnyOrg matches the events of the aggregate with that kind and id, whatever its org.
func AnyOrg(kind, id string) string { return "evt.*." + kind + "." + id + ".>" }

// Probe is where the results for one instance go.
func Probe(org, deployment, instance string) string {
	return "probe." + org + "." + deployment + "." + instance
}

// Delivery is where the state of one delivery to a webhook is.
func Delivery(org, webhook, id string) string { return "delivery." + org + "." + webhook + "." + id }

// AccessLog is where edges put the batches of one app's access log.
func AccessLog(org, deployment string) string { return "log.router." + org + "." + deployment }

// RequestSummary is where edges put the sums of one app's requests.
func RequestSummary(org, deployment string) string { return "metric.router." + org + "." + deployment }

// EdgeApplied is where one edge says which route table revision it serves.
func EdgeApplied(edge string) string { return "edge.applied." + edge }

// EdgeCertificate is where one edge says how getting a certificate ended.
func EdgeCertificate(edge string) string { return "edge.certificate." + edge }

// EdgeUpstream is where one edge says which instances fail.
func EdgeUpstream(edge string) string { return "edge.upstream." + edge }

// SecretsRequest is where a node asks for the environment of one of its instances.
func SecretsRequest(node, instance string) string { return "svc.env." + node + "." + instance }

// NodeInbox begins the subjects on which that node, and nobody else, gets answers.
func NodeInbox(node string) string { return "_INBOX_NODE." + node }

// ParseSecretsRequest splits a SecretsRequest subject.
func ParseSecretsRequest(subject string) (node, instance string, err error) {
	parts := strings.Split(subject, ".")
	if len(parts) != 4 || parts[0] != "svc" || parts[1] != "env" {
		return "", "", fmt.Errorf("%q is no secrets request: %w", subject, ErrInvalid)
	}
	return parts[2], parts[3], nil
}

// DesiredKey is the VIEW_desired key of one instance on one node.
func DesiredKey(node, instance string) string { return node + "." + instance }

// DesiredOfNode matches all keys of one node in VIEW_desired.
func DesiredOfNode(node string) string { return node + ".>" }

// InstanceKey is the VIEW_instances key of one instance.
func InstanceKey(org, deployment, instance string) string {
	return org + "." + deployment + "." + instance
}

// DataKey is the KEYS key of one aggregate's wrapped data key.
func DataKey(a Aggregate) string { return a.Org + "." + a.Kind + "." + a.ID }

// AnswerKey is the ANSWERS key of one request of one caller; both are hashes.
func AnswerKey(caller, request string) string { return caller + "." + request }

// AnswersOf matches all keys of one caller in ANSWERS.
func AnswersOf(caller string) string { return caller + ".*" }

// HostKey is the VIEW_routes key of a host: the host itself, lowercased.
func HostKey(host string) string { return strings.ToLower(host) }

// ValidToken reports whether s can be one token of a subject: an org, node, id.
func ValidToken(s string) bool { return token(s) == nil }

func token(s string) error {
	if s == "" || len(s) > 128 {
		return fmt.Errorf("%q must have 1 to 128 characters: %w", s, ErrInvalid)
	}
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
		default:
			return fmt.Errorf("%q may hold letters, digits, hyphens and underscores only: %w", s, ErrInvalid)
		}
	}
	return nil
}
