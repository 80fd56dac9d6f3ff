package subjects

// Names of what NATS clients outside read an organization's events with. They connect
// to a server of their own, which reads the log as a leaf node; see services/subscriptions.
const (
	// LiveEvents is where StreamEvents repeats each event once it is in the log, and
	// never one that was refused: LivePrefix before its subject.
	LiveEvents = LivePrefix + ">"
	// LivePrefix begins those subjects.
	LivePrefix = "live."
	// SubscriptionsAPI is another name for JetStream's API, which a leaf node may not
	// call by its own.
	SubscriptionsAPI = "$JS.evt.API.>"
	// JetStreamAPI is its own.
	JetStreamAPI = "$JS.API.>"

	// subscriptionPrefix begins the names of outsiders' consumers of StreamEvents.
	subscriptionPrefix = "outside-"
)

// OrgEvents matches all events of one org.
func OrgEvents(org string) string { return "evt." + org + ".>" }

// LiveOf is where an event subject, or filter, is repeated.
func LiveOf(subject string) string { return LivePrefix + subject }

// LivePlatform matches the repeated events of no tenant.
const LivePlatform = LivePrefix + "evt." + Platform + ".>"

// SubscriptionConsumer is the consumer of StreamEvents that keeps the place of the
// credential with that id.
func SubscriptionConsumer(id string) string { return subscriptionPrefix + id }

// IsSubscriptionConsumer reports whether a consumer is an outsider's, and whose.
func IsSubscriptionConsumer(name string) (id string, ok bool) {
	if len(name) <= len(subscriptionPrefix) || name[:len(subscriptionPrefix)] != subscriptionPrefix {
		return "", false
	}
	return name[len(subscriptionPrefix):], true
}

// ConsumerAPI are the subjects by which a consumer of StreamEvents is read.
type ConsumerAPI struct {
	// Info and Next are requests, Ack is where messages are acknowledged.
	Info, Next, Ack string
}

// ClientsConsumerAPI is what clients call.
func ClientsConsumerAPI(consumer string) ConsumerAPI { return consumerAPI("$JS.API.", consumer) }

// LeafConsumerAPI is what a leaf node calls in their place, by SubscriptionsAPI. The
// consumer * is any.
func LeafConsumerAPI(consumer string) ConsumerAPI { return consumerAPI("$JS.evt.API.", consumer) }

func consumerAPI(api, consumer string) ConsumerAPI {
	return ConsumerAPI{
		Info: api + "CONSUMER.INFO." + StreamEvents + "." + consumer,
		Next: api + "CONSUMER.MSG.NEXT." + StreamEvents + "." + consumer,
		Ack:  "$JS.ACK." + StreamEvents + "." + consumer + ".>",
	}
}

// ServiceReplies matches where the answers to a server's requests in others' names go.
const ServiceReplies = "_R_.>"

// ClientInboxes matches where plain NATS clients get their answers.
const ClientInboxes = "_INBOX.>"
