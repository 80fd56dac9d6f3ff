// Package readmodel answers questions about deployments from PostgreSQL: rows
// that are a pure function of the log.
package readmodel

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/encoding/protojson"

	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/scheduler/audit"
	"github.com/slipway-paas/slipway/services/scheduler/deployment"
)

// Name and Version of the projection; a change of its tables or folds is a new version.
const (
	Name    = "deployments"
	Version = 1
)

// Tables is the SQL that makes the tables.
//
//go:embed schema.sql
var Tables string

// Filters are the events it reads.
func Filters() []string { return []string{subjects.KindFilter(subjects.Deployment)} }

// Folder turns events into rows. It keeps the deployments it has met in memory;
// one it has not met is folded from the log.
type Folder struct {
	store  eventstore.Store
	states map[string]deployment.State
}

// NewFolder returns a folder that has met none.
func NewFolder(store eventstore.Store) *Folder {
	return &Folder{store: store, states: map[string]deployment.State{}}
}

// Apply writes what a batch of events changes. When it fails nothing of the batch
// is kept in memory either.
func (f *Folder) Apply(ctx context.Context, tx pgx.Tx, events []eventstore.Recorded) error {
	changed := map[string]deployment.State{}
	batch := &pgx.Batch{}
	for _, rec := range events {
		id := rec.Aggregate.ID
		before, ok := changed[id]
		if !ok {
			var err error
			if before, err = f.before(ctx, rec); err != nil {
				return err
			}
		}
		for _, c := range audit.Fold(before, rec) {
			if err := queueLog(batch, id, rec.Sequence, c); err != nil {
				return err
			}
		}
		changed[id] = deployment.Evolve(before, rec)
	}
	for _, s := range changed {
		if s.Exists() {
			queueDeployment(batch, deployment.Summary(s))
		}
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("writing rows: %w", err)
	}
	for id, s := range changed {
		f.states[id] = s
	}
	return nil
}

// before is the state that the event was appended to.
func (f *Folder) before(ctx context.Context, rec eventstore.Recorded) (deployment.State, error) {
	if s, ok := f.states[rec.Aggregate.ID]; ok && s.Sequence < rec.Sequence {
		return s, nil
	}
	earlier, err := f.store.Load(ctx, rec.Aggregate, 0)
	if err != nil {
		return deployment.State{}, fmt.Errorf("loading %s: %w", rec.Aggregate, err)
	}
	var s deployment.State
	for _, e := range earlier {
		if e.Sequence >= rec.Sequence {
			break
		}
		s = deployment.Evolve(s, e)
	}
	return s, nil
}

func queueDeployment(b *pgx.Batch, d *schedulerv1.Deployment) {
	b.Queue(`INSERT INTO deployments (id, org_id, operator_id, app_id, tier_id, container_name, container_image, node_id,
			subdomain, host, custom_domain, status, status_reason, health_status, billing_status,
			memory_limit_mb, cpu_limit_millicores, inserted_at, deployed_at, stopped_at, sequence)
		VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19,$20,$21)
		ON CONFLICT (id) DO UPDATE SET container_name=$6, container_image=$7, node_id=$8, status=$12, status_reason=$13,
			health_status=$14, billing_status=$15, memory_limit_mb=$16, cpu_limit_millicores=$17, deployed_at=$19, stopped_at=$20, sequence=$21`,
		d.Id, d.OrgId, d.OperatorId, d.AppId, d.TierId, d.ContainerName, d.ContainerImage, d.NodeId,
		d.Subdomain, d.Host, d.CustomDomain, d.Status, audit.Clean(d.StatusReason), d.HealthStatus, d.BillingStatus,
		int64(d.MemoryLimitMb), int64(d.CpuLimitMillicores), d.InsertedAt.AsTime(), nullable(d.DeployedAt), nullable(d.StoppedAt), int64(d.Sequence))
}

func queueLog(b *pgx.Batch, deploymentID string, sequence uint64, c audit.Change) error {
	var details *string
	if c.Details != nil {
		text, err := protojson.Marshal(c.Details)
		if err != nil {
			return fmt.Errorf("writing the details of %s: %w", c.Key, err)
		}
		s := string(text)
		details = &s
	}
	if c.New {
		b.Queue(`INSERT INTO deployment_logs (deployment_id, key, id, action, status, initiated_by, inserted_at, sequence, details)
			VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9)
			ON CONFLICT (deployment_id, key) DO UPDATE SET status=$5, details=$9`,
			deploymentID, c.Key, audit.EntryID(deploymentID, c.Key), c.Action, c.Status, c.InitiatedBy, c.At, int64(sequence), details)
		return nil
	}
	b.Queue(`UPDATE deployment_logs SET
			status = CASE WHEN $3 = '' THEN status ELSE $3 END,
			details = CASE WHEN $4::jsonb IS NULL THEN details ELSE COALESCE(details, '{}'::jsonb) || $4::jsonb END
		WHERE deployment_id=$1 AND key=$2`, deploymentID, c.Key, c.Status, details)
	return nil
}

func nullable(t interface {
	IsValid() bool
	AsTime() time.Time
}) *time.Time {
	if !t.IsValid() {
		return nil
	}
	at := t.AsTime()
	return &at
}
