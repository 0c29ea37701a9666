-- One row: which database this is, and when stale claims were last looked for.
--
-- Resources in a cluster name the broker by this id, so that another database's
-- "no such work" cannot erase them.
CREATE TABLE broker_instance (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    swept_at timestamptz
);
INSERT INTO broker_instance DEFAULT VALUES;

CREATE TABLE agents (
    id uuid PRIMARY KEY,
    name varchar(63) NOT NULL,
    cluster_name varchar(253) NOT NULL,
    labels jsonb NOT NULL,
    annotations jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz,
    incarnation uuid,
    deleted_at timestamptz
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX living_agents_by_name ON agents (name) WHERE deleted_at IS NULL;

-- Every process of an agent that was ever heard of.  One that is here and is not the
-- agent's current one was superseded; no clock is asked.
CREATE TABLE agent_incarnations (
    agent_id uuid NOT NULL REFERENCES agents (id),
    incarnation uuid NOT NULL,
    PRIMARY KEY (agent_id, incarnation)
);

CREATE TABLE api_keys (
    short_id char(10) PRIMARY KEY,
    secret_sha256 bytea NOT NULL,
    role varchar(20) NOT NULL,
    agent_id uuid REFERENCES agents (id),
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz,
    CONSTRAINT role_is_known CHECK (role IN ('admin', 'agent')),
    CONSTRAINT agent_key_names_its_agent CHECK ((role = 'agent') = (agent_id IS NOT NULL))
);
CREATE INDEX api_keys_by_agent ON api_keys (agent_id) WHERE revoked_at IS NULL;

-- Distinct targets are few and Works are many: each target is stored once, with the
-- agents that it selects now.  A Work points at its selector; that is its lane.
CREATE TABLE selectors (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest bytea NOT NULL UNIQUE,
    targets jsonb NOT NULL
);
CREATE TABLE agent_selectors (
    agent_id uuid NOT NULL REFERENCES agents (id),
    selector_id bigint NOT NULL REFERENCES selectors (id),
    PRIMARY KEY (agent_id, selector_id)
);
CREATE INDEX agent_selectors_by_selector ON agent_selectors (selector_id, agent_id);

-- What is to be done or being done; what is finished is not here.
--
-- `claim_id` outlives a lost lease: while the Work is PENDING and nobody else has claimed
-- it, the holder of that claim may still revive it.  `round` is the number of the newest
-- claim.  `seq` is the order of arrival.
CREATE TABLE work_queue (
    id uuid PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT now(),
    work_type varchar(50) NOT NULL,
    crd_spec text NOT NULL,
    selector_id bigint NOT NULL REFERENCES selectors (id),
    seq bigint GENERATED ALWAYS AS IDENTITY,
    priority int NOT NULL,
    max_retries int NOT NULL,
    claim_timeout_seconds int NOT NULL DEFAULT 3600,
    status varchar(20) NOT NULL DEFAULT 'PENDING',
    claimed_by uuid REFERENCES agents (id),
    claimed_at timestamptz,
    lease_expires_at timestamptz,
    claim_id uuid,
    round int NOT NULL DEFAULT 0,
    lost_claims int NOT NULL DEFAULT 0,
    cancel_requested_at timestamptz,
    progress jsonb,
    CONSTRAINT pending_or_claimed CHECK (status IN ('PENDING', 'CLAIMED')),
    CONSTRAINT claimed_or_claim_is_null CHECK (
        num_nonnulls(claimed_by, claimed_at, lease_expires_at)
            = CASE status WHEN 'CLAIMED' THEN 3 ELSE 0 END
    ),
    CONSTRAINT claimed_has_claim_id CHECK (status = 'PENDING' OR claim_id IS NOT NULL)
) WITH (
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.05
);
CREATE INDEX work_queue_lane ON work_queue (selector_id, priority DESC, seq)
    WHERE status = 'PENDING';
CREATE INDEX work_queue_by_lease ON work_queue (lease_expires_at) WHERE status = 'CLAIMED';
CREATE INDEX work_queue_by_holder ON work_queue (claimed_by) WHERE status = 'CLAIMED';

-- What is finished, for good.
CREATE TABLE work_execution_log (
    id uuid PRIMARY KEY,
    work_type varchar(50) NOT NULL,
    created_at timestamptz NOT NULL,
    claimed_at timestamptz,
    completed_at timestamptz NOT NULL DEFAULT now(),
    claimed_by uuid REFERENCES agents (id),
    claim_id uuid,
    outcome varchar(20) NOT NULL,
    success boolean GENERATED ALWAYS AS (outcome = 'succeeded') STORED,
    retries_attempted int,
    retryable boolean,
    result_message text,
    result jsonb,
    crd_spec text NOT NULL,
    selector_id bigint NOT NULL REFERENCES selectors (id),
    priority int NOT NULL,
    max_retries int NOT NULL,
    claim_timeout_seconds int NOT NULL,
    round int NOT NULL,
    lost_claims int NOT NULL,
    cancel_requested_at timestamptz,
    progress jsonb,
    CONSTRAINT outcome_is_known
        CHECK (outcome IN ('succeeded', 'failed', 'cancelled', 'expired', 'quarantined'))
);
CREATE INDEX work_execution_log_by_agent ON work_execution_log (claimed_by, id);
CREATE INDEX work_execution_log_by_outcome ON work_execution_log (outcome, id);

-- Every claim that was ever given, with how it ended and what its completion was answered.
CREATE TABLE work_claims (
    claim_id uuid PRIMARY KEY,
    work_id uuid NOT NULL,
    agent_id uuid NOT NULL REFERENCES agents (id),
    round int NOT NULL,
    request_id uuid,
    claimed_at timestamptz NOT NULL,
    ended_at timestamptz,
    ended_as varchar(20),
    answer jsonb,
    CONSTRAINT ended_or_open CHECK ((ended_at IS NULL) = (ended_as IS NULL)),
    CONSTRAINT ended_as_is_known
        CHECK (ended_as IN ('completed', 'lease_lost', 'released')),
    CONSTRAINT one_claim_each_round UNIQUE (work_id, round)
);
CREATE INDEX work_claims_by_request ON work_claims (agent_id, request_id)
    WHERE request_id IS NOT NULL;

-- A Work wherever it is.  Reading this is one statement and thus one snapshot: a Work that
-- moves meanwhile is seen on one side or the other, never on neither.
CREATE VIEW works AS
SELECT id, work_type, status, created_at, claimed_at, NULL::timestamptz AS completed_at,
       claimed_by, round, priority, max_retries, claim_timeout_seconds, lease_expires_at,
       lost_claims, cancel_requested_at, progress, NULL::boolean AS success,
       NULL::int AS retries_attempted, NULL::text AS result_message, NULL::jsonb AS result,
       crd_spec, selector_id
  FROM work_queue
UNION ALL
SELECT id, work_type, upper(outcome)::varchar(20), created_at, claimed_at, completed_at,
       claimed_by, round, priority, max_retries, claim_timeout_seconds, NULL::timestamptz,
       lost_claims, cancel_requested_at, progress, success,
       retries_attempted, result_message, result,
       crd_spec, selector_id
  FROM work_execution_log;

-- Who may claim a Work, and whom a finished one was meant for, as agents are labelled now.
CREATE VIEW work_targets AS
SELECT work.id AS work_id, selected.agent_id
  FROM (SELECT id, selector_id FROM work_queue
        UNION ALL
        SELECT id, selector_id FROM work_execution_log) AS work
  JOIN agent_selectors AS selected USING (selector_id);
