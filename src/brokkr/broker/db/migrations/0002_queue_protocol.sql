-- The whole life of a Work: tenants, delays, hand-offs, events, retention.

-- Who submits Work and is not an admin.  A limit that is NULL does not exist; the rate is
-- kept as a bucket of tokens that fills up again within a minute.
CREATE TABLE generators (
    id uuid PRIMARY KEY,
    name varchar(63) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    max_pending int,
    max_submissions_per_minute int,
    tokens double precision,
    tokens_at timestamptz,
    deleted_at timestamptz
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX living_generators_by_name ON generators (name) WHERE deleted_at IS NULL;

ALTER TABLE api_keys
    ADD COLUMN generator_id uuid REFERENCES generators (id),
    ADD COLUMN name varchar(63) NOT NULL DEFAULT '',
    ADD COLUMN last_used_at timestamptz,
    DROP CONSTRAINT role_is_known,
    ADD CONSTRAINT role_is_known CHECK (role IN ('admin', 'viewer', 'generator', 'agent')),
    ADD CONSTRAINT generator_key_names_its_generator
        CHECK ((role = 'generator') = (generator_id IS NOT NULL));
CREATE INDEX api_keys_by_generator ON api_keys (generator_id) WHERE revoked_at IS NULL;

-- `capacity` and `capabilities` are what the agent last said of itself.
ALTER TABLE agents
    ADD COLUMN drained_at timestamptz,
    ADD COLUMN capacity jsonb,
    ADD COLUMN capabilities jsonb;

ALTER TABLE agent_incarnations
    ADD COLUMN first_seen_at timestamptz NOT NULL DEFAULT now();

-- A selector is a lane of the queue: a target, for one type of work.  One with `excluded`
-- agents holds what these have tried; it selects them all the same while there is nobody
-- else.  Works name their selector without a foreign key, which would need an index that
-- nothing else needs; who finds a selector for a Work locks it (find_selector.sql).
ALTER TABLE work_queue DROP CONSTRAINT work_queue_selector_id_fkey;
ALTER TABLE work_execution_log DROP CONSTRAINT work_execution_log_selector_id_fkey;
ALTER TABLE selectors
    ADD COLUMN work_type varchar(50) NOT NULL DEFAULT 'build',
    ADD COLUMN excluded uuid[] NOT NULL DEFAULT '{}',
    ADD COLUMN created_at timestamptz NOT NULL DEFAULT now(),
    DROP CONSTRAINT selectors_digest_key,
    ADD CONSTRAINT one_selector_per_target UNIQUE (digest, work_type, excluded);
ALTER TABLE selectors ALTER COLUMN work_type DROP DEFAULT;

-- `is_due`: a Work enters its lane when it may start, not before, so that nothing that
-- cannot be claimed is read by every claim.
-- `lease_check_at`: when to look whether the lease has run out.  It is indexed and moves
-- only when it has passed; `lease_expires_at` moves with every renewal and is not indexed,
-- so that a renewal is a HOT update.
-- `events` is the number of the newest event.
ALTER TABLE work_queue
    ADD COLUMN generator_id uuid REFERENCES generators (id),
    ADD COLUMN labels jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN idempotency_key varchar(255),
    ADD COLUMN traceparent varchar(55),
    ADD COLUMN max_handoffs int NOT NULL DEFAULT 0,
    ADD COLUMN handoffs int NOT NULL DEFAULT 0,
    ADD COLUMN not_before timestamptz,
    ADD COLUMN is_due boolean NOT NULL DEFAULT true,
    ADD COLUMN pending_since timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN start_deadline timestamptz,
    ADD COLUMN requeued_at timestamptz,
    ADD COLUMN lease_check_at timestamptz,
    ADD COLUMN events int NOT NULL DEFAULT 0;
UPDATE work_queue SET lease_check_at = lease_expires_at;
ALTER TABLE work_queue
    DROP CONSTRAINT claimed_or_claim_is_null,
    ADD CONSTRAINT claimed_or_claim_is_null CHECK (
        num_nonnulls(claimed_by, claimed_at, lease_expires_at, lease_check_at)
            = CASE status WHEN 'CLAIMED' THEN 4 ELSE 0 END
    );

DROP INDEX work_queue_lane, work_queue_by_lease;
CREATE INDEX work_queue_lane ON work_queue (selector_id, priority DESC, seq)
    WHERE status = 'PENDING' AND is_due;
CREATE INDEX work_queue_not_due ON work_queue (not_before)
    WHERE status = 'PENDING' AND NOT is_due;
CREATE INDEX work_queue_by_start_deadline ON work_queue (start_deadline)
    WHERE status = 'PENDING' AND round = 0 AND start_deadline IS NOT NULL;
CREATE INDEX work_queue_by_lease_check ON work_queue (lease_check_at) WHERE status = 'CLAIMED';
CREATE INDEX work_queue_depth ON work_queue (generator_id, work_type) WHERE status = 'PENDING';

-- For lists, newest first: each filter is one range in the order of ids, however rare what
-- it asks for is.  Most are of what is PENDING only, so that a claim does not pay for them.
CREATE INDEX work_queue_claimed ON work_queue (id) WHERE status = 'CLAIMED';
CREATE INDEX work_queue_by_type ON work_queue (work_type, id) WHERE status = 'PENDING';
CREATE INDEX work_queue_by_generator ON work_queue (generator_id, id)
    WHERE status = 'PENDING' AND generator_id IS NOT NULL;
CREATE INDEX work_queue_by_wait ON work_queue (pending_since) WHERE status = 'PENDING' AND is_due;

-- The Works that have a label (`key=value`), queued and finished alike: written when a Work is
-- submitted and not when it moves.
CREATE TABLE work_labels (
    label text NOT NULL,
    work_id uuid NOT NULL,
    PRIMARY KEY (label, work_id)
);

-- `crd_spec` is NULL once the payload was pruned.
ALTER TABLE work_execution_log
    ALTER COLUMN crd_spec DROP NOT NULL,
    ADD COLUMN generator_id uuid REFERENCES generators (id),
    ADD COLUMN labels jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN idempotency_key varchar(255),
    ADD COLUMN traceparent varchar(55),
    ADD COLUMN max_handoffs int NOT NULL DEFAULT 0,
    ADD COLUMN handoffs int NOT NULL DEFAULT 0,
    ADD COLUMN not_before timestamptz,
    ADD COLUMN start_deadline timestamptz,
    ADD COLUMN requeued_at timestamptz,
    ADD COLUMN events int NOT NULL DEFAULT 0,
    ADD COLUMN queue_seconds double precision GENERATED ALWAYS AS
        (extract(epoch FROM coalesce(claimed_at, completed_at) - created_at)) STORED,
    ADD COLUMN run_seconds double precision GENERATED ALWAYS AS
        (extract(epoch FROM completed_at - claimed_at)) STORED;
CREATE INDEX work_execution_log_by_age ON work_execution_log (outcome, completed_at);
CREATE INDEX work_execution_log_by_generator ON work_execution_log (generator_id, id)
    WHERE generator_id IS NOT NULL;
CREATE INDEX work_execution_log_by_type ON work_execution_log (work_type, id);
CREATE INDEX work_execution_log_by_selector ON work_execution_log (selector_id);

-- `retries` and `message` are the holder's report, where another agent takes over.
ALTER TABLE work_claims
    ADD COLUMN retries int,
    ADD COLUMN message text,
    DROP CONSTRAINT ended_as_is_known,
    ADD CONSTRAINT ended_as_is_known
        CHECK (ended_as IN ('completed', 'lease_lost', 'released', 'handed_off'));

-- All that happened to a Work, written with the change itself.  Numbers are given under
-- the lock of the Work's row, so they have no gaps and a reader can resume at any of them.
CREATE TABLE work_events (
    work_id uuid NOT NULL,
    number int NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    kind varchar(20) NOT NULL,
    actor varchar(100) NOT NULL,
    detail jsonb NOT NULL,
    PRIMARY KEY (work_id, number)
);

-- Outlives the queue's row: the same key gets the same Work until it expires.
CREATE TABLE idempotency_keys (
    owner uuid NOT NULL,
    key varchar(255) NOT NULL,
    body_sha256 bytea NOT NULL,
    work_id uuid NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (owner, key)
);
CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);

-- How far payloads and events have been pruned: what ended before is not read again.
CREATE TABLE retention_marks (
    outcome varchar(20) PRIMARY KEY,
    payloads_pruned_to timestamptz NOT NULL DEFAULT '-infinity',
    events_pruned_to timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO retention_marks (outcome)
VALUES ('succeeded'), ('failed'), ('cancelled'), ('expired'), ('quarantined');
CREATE INDEX agent_incarnations_by_age ON agent_incarnations (first_seen_at);

-- Selectors that no Work refers to, nor a narrower one of the same target.
CREATE VIEW unused_selectors AS
SELECT selector.id
  FROM selectors AS selector
 WHERE (SELECT true FROM work_queue AS work
         WHERE work.selector_id = selector.id AND work.status = 'PENDING' AND work.is_due
         LIMIT 1) IS NULL
   AND (SELECT true FROM work_execution_log AS log
         WHERE log.selector_id = selector.id
         LIMIT 1) IS NULL
   AND (selector.excluded <> '{}'
        OR (SELECT true FROM selectors AS narrow
             WHERE narrow.digest = selector.digest
               AND narrow.work_type = selector.work_type
               AND narrow.excluded <> '{}'
             LIMIT 1) IS NULL)
   AND selector.id NOT IN (SELECT selector_id FROM work_queue WHERE status = 'CLAIMED')
   AND selector.id NOT IN (SELECT selector_id FROM work_queue
                            WHERE status = 'PENDING' AND NOT is_due);

-- The views, with the new columns.
DROP VIEW works, work_targets;
CREATE VIEW works AS
SELECT id, work_type, status, created_at, claimed_at, NULL::timestamptz AS completed_at,
       claimed_by, round, priority, max_retries, claim_timeout_seconds, lease_expires_at,
       lost_claims, max_handoffs, handoffs, not_before, start_deadline, requeued_at,
       cancel_requested_at, progress, labels, generator_id, traceparent,
       NULL::boolean AS success, NULL::int AS retries_attempted,
       NULL::text AS result_message, NULL::jsonb AS result,
       NULL::double precision AS queue_seconds, NULL::double precision AS run_seconds,
       crd_spec, selector_id, events
  FROM work_queue
UNION ALL
SELECT id, work_type, upper(outcome)::varchar(20), created_at, claimed_at, completed_at,
       claimed_by, round, priority, max_retries, claim_timeout_seconds, NULL::timestamptz,
       lost_claims, max_handoffs, handoffs, not_before, start_deadline, requeued_at,
       cancel_requested_at, progress, labels, generator_id, traceparent,
       success, retries_attempted,
       result_message, result,
       queue_seconds, run_seconds,
       crd_spec, selector_id, events
  FROM work_execution_log;

CREATE VIEW work_targets AS
SELECT work.id AS work_id, selected.agent_id
  FROM (SELECT id, selector_id FROM work_queue
        UNION ALL
        SELECT id, selector_id FROM work_execution_log) AS work
  JOIN agent_selectors AS selected USING (selector_id);
