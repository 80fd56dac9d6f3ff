package natsconn

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/libs/subjects"
)

const (
	// HeartbeatTTL is how long a node counts as there after its last heartbeat.
	HeartbeatTTL = 10 * time.Second
	dedupeWindow = 2 * time.Minute
	probesKept   = time.Hour
	// markersKept is how long a bucket says that a key was deleted.
	markersKept = time.Hour
	// ratesKept is longer than what any limit of requests is counted over.
	ratesKept = 2 * time.Minute
	ratesMax  = 16 << 20
	// AnswersTTL is how long a request with the same Idempotency-Key is the same request.
	AnswersTTL = 24 * time.Hour
	answersMax = 256 << 20
	// DeliveriesKept is how long deliveries to webhooks are listed and may be replayed.
	DeliveriesKept = 7 * 24 * time.Hour
	// DeliveriesMax bounds them in number, for they are indexed in memory.
	DeliveriesMax  = 100_000
	deliveriesSize = 512 << 20
	// CertificateLockTTL is how long an edge that died keeps others from a certificate.
	CertificateLockTTL = 10 * time.Second
	// certificatesMax has room for the certificates of some 80,000 hosts.
	certificatesMax = 512 << 20
	// certificateMax is more than any chain of certificates has.
	certificateMax = 256 << 10
	// certificateLocksMax is for more locks than edges ever hold.
	certificateLocksMax = 16 << 20
	// AccessLogsKept is how long requests can be looked back at, if there is room.
	AccessLogsKept = time.Hour
	accessLogsSize = 48 << 20
	// accessLogsEach bounds the batches of one app, so that a busy one leaves room.
	accessLogsEach = 1024
	summariesSize  = 16 << 20
)

// Provision makes the platform's streams and buckets, or brings those that are
// there to the same settings; every process may call it at any time. replicas is 1
// on one server, 3 in a cluster.
func Provision(ctx context.Context, js jetstream.JetStream, replicas int) error {
	for _, stream := range []jetstream.StreamConfig{
		{
			Name:               subjects.StreamEvents,
			Description:        "Every event of the platform, in one order. Never edited.",
			Subjects:           []string{subjects.AllEvents},
			Storage:            jetstream.FileStorage,
			Retention:          jetstream.LimitsPolicy,
			Replicas:           replicas,
			Duplicates:         dedupeWindow,
			AllowAtomicPublish: true,
			AllowDirect:        true,
			DenyDelete:         true,
			DenyPurge:          true,
			// What is published is not yet what happened: outsiders hear of what was stored.
			RePublish: &jetstream.RePublish{Source: subjects.AllEvents, Destination: subjects.LiveOf(subjects.AllEvents)},
		},
		{
			Name:              subjects.StreamProbes,
			Description:       "The last probe result of each instance.",
			Subjects:          []string{subjects.AllProbes},
			Storage:           jetstream.MemoryStorage,
			Replicas:          replicas,
			MaxMsgsPerSubject: 1,
			MaxAge:            probesKept,
			AllowDirect:       true,
			// Results are never repeated: no room for remembering ids.
			Duplicates: time.Second,
		},
		{
			Name:              subjects.StreamDeliveries,
			Description:       "The last state of each delivery to a webhook.",
			Subjects:          []string{subjects.AllDeliveries},
			Storage:           jetstream.FileStorage,
			Replicas:          replicas,
			MaxMsgsPerSubject: 1,
			MaxMsgs:           DeliveriesMax,
			MaxBytes:          deliveriesSize,
			MaxAge:            DeliveriesKept,
			Discard:           jetstream.DiscardOld,
			AllowDirect:       true,
			Duplicates:        time.Second,
		},
		{
			Name:              subjects.StreamAccessLogs,
			Description:       "What edges served of late, request by request.",
			Subjects:          []string{subjects.AllAccessLogs},
			Storage:           jetstream.MemoryStorage,
			Replicas:          replicas,
			MaxAge:            AccessLogsKept,
			MaxBytes:          accessLogsSize,
			MaxMsgsPerSubject: accessLogsEach,
			Discard:           jetstream.DiscardOld,
			// Edges do not wait to hear that a batch was kept.
			NoAck:      true,
			Duplicates: time.Second,
		},
		{
			Name:        subjects.StreamRequestSummaries,
			Description: "How many requests edges served of late, and how fast.",
			Subjects:    []string{subjects.AllRequestSummaries},
			Storage:     jetstream.MemoryStorage,
			Replicas:    replicas,
			MaxAge:      AccessLogsKept,
			MaxBytes:    summariesSize,
			Discard:     jetstream.DiscardOld,
			NoAck:       true,
			Duplicates:  time.Second,
		},
	} {
		if _, err := js.CreateOrUpdateStream(ctx, stream); err != nil {
			return fmt.Errorf("make the stream %s: %w", stream.Name, err)
		}
	}
	for _, bucket := range []jetstream.KeyValueConfig{
		{Bucket: subjects.BucketDesired, Description: "What each node must run.", LimitMarkerTTL: markersKept},
		{Bucket: subjects.BucketInstances, Description: "What health must probe.", LimitMarkerTTL: markersKept},
		{Bucket: subjects.BucketRoutes, Description: "Which host goes to which instances.", LimitMarkerTTL: markersKept},
		{Bucket: subjects.BucketKeys, Description: "Wrapped data keys."},
		{Bucket: subjects.BucketProviders, Description: "Sealed credentials for services outside."},
		{
			Bucket: subjects.BucketNodes, Description: "Heartbeats of nodes.", Storage: jetstream.MemoryStorage,
			TTL: HeartbeatTTL, LimitMarkerTTL: time.Minute,
		},
		{
			Bucket: subjects.BucketRates, Description: "How many requests came, of whom and to what.", Storage: jetstream.MemoryStorage,
			TTL: ratesKept, MaxBytes: ratesMax,
		},
		{Bucket: subjects.BucketAnswers, Description: "Sealed answers to requests that may be repeated.", TTL: AnswersTTL, MaxBytes: answersMax},
		{
			Bucket: subjects.BucketCertificates, Description: "What edges share to serve HTTPS, sealed.",
			MaxBytes: certificatesMax, MaxValueSize: certificateMax,
		},
		{
			Bucket: subjects.BucketCertificateLocks, Description: "Which edge is getting which certificate.", Storage: jetstream.MemoryStorage,
			TTL: CertificateLockTTL, MaxBytes: certificateLocksMax,
		},
	} {
		bucket.History = 1
		bucket.Replicas = replicas
		if _, err := js.CreateOrUpdateKeyValue(ctx, bucket); err != nil {
			return fmt.Errorf("make the bucket %s: %w", bucket.Bucket, err)
		}
	}
	return nil
}
