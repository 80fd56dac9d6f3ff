CREATE TABLE deployments (
    id                   text PRIMARY KEY,
    org_id               text NOT NULL,
    operator_id          text NOT NULL,
    app_id               text NOT NULL,
    tier_id              text NOT NULL,
    container_name       text NOT NULL,
    container_image      text NOT NULL,
    node_id              text NOT NULL,
    subdomain            text NOT NULL,
    host                 text NOT NULL,
    custom_domain        text NOT NULL,
    status               text NOT NULL,
    status_reason        text NOT NULL,
    health_status        text NOT NULL,
    billing_status       text NOT NULL,
    memory_limit_mb      bigint NOT NULL,
    cpu_limit_millicores bigint NOT NULL,
    inserted_at          timestamptz NOT NULL,
    deployed_at          timestamptz,
    stopped_at           timestamptz,
    sequence             bigint NOT NULL,
    instances            bigint NOT NULL,
    instances_healthy    bigint NOT NULL,
    release_number       bigint NOT NULL
);

CREATE INDEX deployments_of_operator ON deployments (org_id, operator_id, inserted_at DESC, id DESC);

CREATE TABLE deployment_logs (
    deployment_id text NOT NULL,
    key           text NOT NULL,
    id            text NOT NULL,
    action        text NOT NULL,
    status        text NOT NULL,
    initiated_by  text NOT NULL,
    inserted_at   timestamptz NOT NULL,
    sequence      bigint NOT NULL,
    details       jsonb,
    PRIMARY KEY (deployment_id, key)
);

CREATE INDEX deployment_logs_in_order ON deployment_logs (deployment_id, sequence);
