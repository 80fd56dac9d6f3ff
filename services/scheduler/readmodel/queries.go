package readmodel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
)

// maxRows bounds what one question may return.
const maxRows = 1000

// ErrNotFound is returned for a deployment that has no row.
var ErrNotFound = errors.New("no such deployment")

// Rows reads the projection's tables.
type Rows struct {
	Pool   *pgxpool.Pool
	Schema string
}

func (r Rows) table(name string) string { return pgx.Identifier{r.Schema, name}.Sanitize() }

const columns = `id, org_id, operator_id, app_id, tier_id, container_name, container_image, node_id, subdomain, host,
	custom_domain, status, status_reason, health_status, billing_status, memory_limit_mb, cpu_limit_millicores,
	inserted_at, deployed_at, stopped_at, sequence, instances, instances_healthy, release_number`

// Get returns one deployment, whosever it is. Errors: ErrNotFound.
func (r Rows) Get(ctx context.Context, id string) (*schedulerv1.Deployment, error) {
	rows, err := r.Pool.Query(ctx, "SELECT "+columns+" FROM "+r.table("deployments")+" WHERE id=$1", id)
	if err != nil {
		return nil, fmt.Errorf("reading deployment %s: %w", id, err)
	}
	d, err := pgx.CollectExactlyOneRow(rows, scanDeployment)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("reading deployment %s: %w", id, err)
	}
	return d, nil
}

// List returns an organization's deployments, newest first, at most 1000.
func (r Rows) List(ctx context.Context, org string) ([]*schedulerv1.Deployment, error) {
	rows, err := r.Pool.Query(ctx, "SELECT "+columns+" FROM "+r.table("deployments")+" WHERE org_id=$1 ORDER BY inserted_at DESC, id DESC LIMIT $2", org, maxRows)
	if err != nil {
		return nil, fmt.Errorf("listing deployments: %w", err)
	}
	out, err := pgx.CollectRows(rows, scanDeployment)
	if err != nil {
		return nil, fmt.Errorf("listing deployments: %w", err)
	}
	return out, nil
}

// Logs returns a deployment's audit log, oldest first, the last 1000 entries.
func (r Rows) Logs(ctx context.Context, id string) ([]*schedulerv1.LogEntry, error) {
	rows, err := r.Pool.Query(ctx, `SELECT id, action, status, initiated_by, inserted_at, details FROM
		(SELECT * FROM `+r.table("deployment_logs")+` WHERE deployment_id=$1 ORDER BY sequence DESC, key DESC LIMIT $2) newest
		ORDER BY sequence, key`, id, maxRows)
	if err != nil {
		return nil, fmt.Errorf("reading the audit log of %s: %w", id, err)
	}
	out, err := pgx.CollectRows(rows, scanLog)
	if err != nil {
		return nil, fmt.Errorf("reading the audit log of %s: %w", id, err)
	}
	return out, nil
}

func scanDeployment(row pgx.CollectableRow) (*schedulerv1.Deployment, error) {
	d := &schedulerv1.Deployment{}
	var memory, cpu, sequence, instances, healthy, release int64
	var inserted time.Time
	var deployed, stopped *time.Time
	err := row.Scan(&d.Id, &d.OrgId, &d.OperatorId, &d.AppId, &d.TierId, &d.ContainerName, &d.ContainerImage, &d.NodeId, &d.Subdomain, &d.Host,
		&d.CustomDomain, &d.Status, &d.StatusReason, &d.HealthStatus, &d.BillingStatus, &memory, &cpu, &inserted, &deployed, &stopped, &sequence,
		&instances, &healthy, &release)
	if err != nil {
		return nil, err
	}
	d.MemoryLimitMb, d.CpuLimitMillicores, d.Sequence = uint32(memory), uint32(cpu), uint64(sequence)
	d.Instances, d.InstancesHealthy, d.ReleaseNumber = uint32(instances), uint32(healthy), uint32(release)
	d.InsertedAt, d.DeployedAt, d.StoppedAt = timestamppb.New(inserted), optional(deployed), optional(stopped)
	return d, nil
}

func scanLog(row pgx.CollectableRow) (*schedulerv1.LogEntry, error) {
	e := &schedulerv1.LogEntry{}
	var at time.Time
	var details []byte
	if err := row.Scan(&e.Id, &e.Action, &e.Status, &e.InitiatedBy, &at, &details); err != nil {
		return nil, err
	}
	e.InsertedAt = timestamppb.New(at)
	if details != nil {
		e.Details = &structpb.Struct{}
		if err := protojson.Unmarshal(details, e.Details); err != nil {
			return nil, fmt.Errorf("reading the details of %s: %w", e.Id, err)
		}
	}
	return e, nil
}

func optional(t *time.Time) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return timestamppb.New(*t)
}
