package readmodel

import (
	"fmt"
	"hash/maphash"
	"maps"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/slipway-paas/slipway/gen/slipway/scheduler/v1"
	"github.com/slipway-paas/slipway/services/scheduler/audit"
)

const putDeployments = `INSERT INTO deployments (id, org_id, operator_id, app_id, tier_id, container_name, container_image, node_id,
		subdomain, host, custom_domain, status, status_reason, health_status, billing_status,
		memory_limit_mb, cpu_limit_millicores, inserted_at, deployed_at, stopped_at, sequence,
		instances, instances_healthy, release_number)
	SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
		$9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[],
		$16::bigint[], $17::bigint[], $18::timestamptz[], $19::timestamptz[], $20::timestamptz[], $21::bigint[],
		$22::bigint[], $23::bigint[], $24::bigint[])
	ON CONFLICT (id) DO UPDATE SET container_name=excluded.container_name, container_image=excluded.container_image,
		node_id=excluded.node_id, status=excluded.status, status_reason=excluded.status_reason, health_status=excluded.health_status,
		billing_status=excluded.billing_status, memory_limit_mb=excluded.memory_limit_mb, cpu_limit_millicores=excluded.cpu_limit_millicores,
		deployed_at=excluded.deployed_at, stopped_at=excluded.stopped_at, sequence=excluded.sequence,
		instances=excluded.instances, instances_healthy=excluded.instances_healthy, release_number=excluded.release_number`

const putEntries = `INSERT INTO deployment_logs (deployment_id, key, id, action, status, initiated_by, inserted_at, sequence, details)
	SELECT d, k, i, a, s, b, at, n, details::jsonb FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
		$7::timestamptz[], $8::bigint[], $9::text[]) AS e(d, k, i, a, s, b, at, n, details)
	ON CONFLICT (deployment_id, key) DO UPDATE SET status=excluded.status, details=excluded.details`

const changeEntries = `UPDATE deployment_logs l SET
		status = CASE WHEN c.status = '' THEN l.status ELSE c.status END,
		details = CASE WHEN c.details IS NULL THEN l.details ELSE COALESCE(l.details, '{}'::jsonb) || c.details::jsonb END
	FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS c(deployment_id, key, status, details)
	WHERE l.deployment_id = c.deployment_id AND l.key = c.key`

var deploymentNames = []string{
	"id", "org_id", "operator_id", "app_id", "tier_id", "container_name", "container_image", "node_id",
	"subdomain", "host", "custom_domain", "status", "status_reason", "health_status", "billing_status",
	"memory_limit_mb", "cpu_limit_millicores", "inserted_at", "deployed_at", "stopped_at", "sequence",
	"instances", "instances_healthy", "release_number",
}

// deploymentColumns are rows of deployments, column by column.
type deploymentColumns struct {
	id, org, operator, app, tier, name, image, node          []string
	subdomain, host, domain, status, reason, health, billing []string
	memory, cpu                                              []int64
	inserted                                                 []time.Time
	deployed, stopped                                        []*time.Time
	sequence                                                 []int64
	instances, answering, release                            []int64
}

func (c *deploymentColumns) add(d *schedulerv1.Deployment) {
	for _, text := range [...]struct {
		column *[]string
		value  string
	}{
		{&c.id, d.Id}, {&c.org, d.OrgId}, {&c.operator, d.OperatorId}, {&c.app, d.AppId}, {&c.tier, d.TierId},
		{&c.name, d.ContainerName}, {&c.image, d.ContainerImage}, {&c.node, d.NodeId},
		{&c.subdomain, d.Subdomain}, {&c.host, d.Host}, {&c.domain, d.CustomDomain}, {&c.status, d.Status},
		{&c.reason, audit.Clean(d.StatusReason)}, {&c.health, d.HealthStatus}, {&c.billing, d.BillingStatus},
	} {
		*text.column = append(*text.column, storable(text.value))
	}
	c.memory, c.cpu = append(c.memory, int64(d.MemoryLimitMb)), append(c.cpu, int64(d.CpuLimitMillicores))
	c.inserted = append(c.inserted, d.InsertedAt.AsTime())
	c.deployed, c.stopped = append(c.deployed, nullable(d.DeployedAt)), append(c.stopped, nullable(d.StoppedAt))
	c.sequence = append(c.sequence, int64(d.Sequence))
	c.instances, c.answering = append(c.instances, int64(d.Instances)), append(c.answering, int64(d.InstancesHealthy))
	c.release = append(c.release, int64(d.ReleaseNumber))
}

func (c *deploymentColumns) values() []any {
	return []any{
		c.id, c.org, c.operator, c.app, c.tier, c.name, c.image, c.node,
		c.subdomain, c.host, c.domain, c.status, c.reason, c.health, c.billing,
		c.memory, c.cpu, c.inserted, c.deployed, c.stopped, c.sequence,
		c.instances, c.answering, c.release,
	}
}

var entryNames = []string{"deployment_id", "key", "id", "action", "status", "initiated_by", "inserted_at", "sequence", "details"}

// entryColumns are rows of deployment_logs, column by column.
type entryColumns struct {
	deployment, key, id, action, status, by []string
	at                                      []time.Time
	sequence                                []int64
	details                                 []*string
}

func (c *entryColumns) add(deployment string, e *entry) error {
	details, err := jsonText(e.Details)
	if err != nil {
		return fmt.Errorf("writing the details of %s: %w", e.Key, err)
	}
	id := ""
	if e.New {
		id = audit.EntryID(deployment, e.Key)
	}
	c.deployment, c.key, c.id = append(c.deployment, deployment), append(c.key, storable(e.Key)), append(c.id, id)
	c.action, c.status, c.by = append(c.action, e.Action), append(c.status, e.Status), append(c.by, storable(e.InitiatedBy))
	c.at, c.sequence, c.details = append(c.at, e.At), append(c.sequence, int64(e.sequence)), append(c.details, details)
	return nil
}

func (c *entryColumns) values() []any {
	return []any{c.deployment, c.key, c.id, c.action, c.status, c.by, c.at, c.sequence, c.details}
}

// source gives columns row by row; it is a pgx.CopyFromSource.
type source struct {
	columns []any
	n, at   int
	row     []any
}

func (s *source) Next() bool { s.at++; return s.at < s.n }
func (s *source) Err() error { return nil }

func (s *source) Values() ([]any, error) {
	s.row = s.row[:0]
	for _, column := range s.columns {
		switch c := column.(type) {
		case []string:
			s.row = append(s.row, c[s.at])
		case []int64:
			s.row = append(s.row, c[s.at])
		case []time.Time:
			s.row = append(s.row, c[s.at])
		case []*time.Time:
			s.row = append(s.row, c[s.at])
		case []*string:
			s.row = append(s.row, c[s.at])
		default:
			return nil, fmt.Errorf("a column of %T cannot be copied", column)
		}
	}
	return s.row, nil
}

// seen remembers keys, eight bytes each. It may take a new one for one that it knows,
// never the other way round.
type seen struct {
	seed   maphash.Seed
	hashes map[uint64]struct{}
}

func newSeen() *seen { return &seen{seed: maphash.MakeSeed(), hashes: map[uint64]struct{}{}} }

// first reports whether it has certainly not been asked for that before.
func (s *seen) first(deployment, key string) bool {
	if s == nil {
		return false
	}
	h := maphash.Comparable(s.seed, entryKey{deployment, key})
	if _, known := s.hashes[h]; known {
		return false
	}
	s.hashes[h] = struct{}{}
	return true
}

// merged puts the fields of b over those of a.
func merged(a, b *structpb.Struct) *structpb.Struct {
	switch {
	case b == nil:
		return a
	case a == nil:
		return b
	}
	fields := maps.Clone(a.Fields)
	maps.Copy(fields, b.Fields)
	return &structpb.Struct{Fields: fields}
}

// nul is the one character that PostgreSQL stores in no text; apps print it too.
const nul, nulShown = "\x00", "\uFFFD"

func storable(s string) string {
	if strings.IndexByte(s, 0) < 0 {
		return s
	}
	return strings.ReplaceAll(s, nul, nulShown)
}

func jsonText(s *structpb.Struct) (*string, error) {
	if s == nil {
		return nil, nil
	}
	text, err := protojson.Marshal(s)
	if err == nil && strings.Contains(string(text), `\u0000`) {
		text, err = protojson.Marshal(storableStruct(s))
	}
	if err != nil {
		return nil, err
	}
	out := string(text)
	return &out, nil
}

func storableStruct(s *structpb.Struct) *structpb.Struct {
	out := &structpb.Struct{Fields: make(map[string]*structpb.Value, len(s.Fields))}
	for name, v := range s.Fields {
		out.Fields[storable(name)] = storableValue(v)
	}
	return out
}

func storableValue(v *structpb.Value) *structpb.Value {
	switch kind := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		return structpb.NewStringValue(storable(kind.StringValue))
	case *structpb.Value_StructValue:
		return structpb.NewStructValue(storableStruct(kind.StructValue))
	case *structpb.Value_ListValue:
		out := &structpb.ListValue{}
		for _, item := range kind.ListValue.Values {
			out.Values = append(out.Values, storableValue(item))
		}
		return structpb.NewListValue(out)
	default:
		return v
	}
}

func nullable(t *timestamppb.Timestamp) *time.Time {
	if !t.IsValid() {
		return nil
	}
	at := t.AsTime()
	return &at
}
