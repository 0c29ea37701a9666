-- Queue Works, in the order in which they are given, each with its first event.
--
-- All of them or none: none if a target was not used lately, so that there is no lane now.
-- With `is_alone` this statement is the whole submission: then it keeps the idempotency keys
-- as well, and queues nothing if one of them is known, or if the generator has limits.  A key
-- that somebody else is keeping at this moment violates its uniqueness when that commits; for
-- the locks see lock_idempotency_keys.sql.
--
-- The lanes are locked, because one in which nothing is queued comes to rest: who finds it
-- here keeps it until the Work that refers to it is committed.
--
-- A start deadline counts from when a Work may start, so a delayed one is not over before.
WITH given AS (
    SELECT work.*, greatest(now(), work.not_before) AS starts_at
      FROM ROWS FROM (
               jsonb_to_recordset(:works::jsonb) AS (
                   id uuid, work_type text, crd_spec text, target_sha256 text, priority int,
                   max_retries int, max_handoffs int, claim_timeout_seconds int,
                   not_before timestamptz, start_within_seconds int, labels jsonb,
                   idempotency_key text, body_sha256 text)
           ) WITH ORDINALITY AS work (
               id, work_type, crd_spec, target_sha256, priority, max_retries, max_handoffs,
               claim_timeout_seconds, not_before, start_within_seconds, labels,
               idempotency_key, body_sha256, place)
), lane AS (
    SELECT id, encode(digest, 'hex') AS target_sha256, work_type, targets
      FROM selectors
     WHERE (digest, work_type) IN (
               SELECT decode(target_sha256, 'hex'), work_type FROM given)
       AND excluded = '{}'
       AND agents IS NULL
       FOR KEY SHARE
), locked AS (
    SELECT pg_advisory_xact_lock(4, hash)
      FROM (SELECT DISTINCT hashtext(:owner::uuid::text || idempotency_key) AS hash
              FROM given
             WHERE :is_alone::boolean AND idempotency_key IS NOT NULL
             ORDER BY hash) AS in_order
), placed AS (
    SELECT given.*, lane.id AS selector_id
      FROM given
      JOIN lane USING (target_sha256, work_type)
     WHERE (SELECT count(*) FROM locked) >= 0
       AND NOT EXISTS (
               SELECT FROM given LEFT JOIN lane USING (target_sha256, work_type)
                WHERE lane.id IS NULL)
       AND NOT (:is_alone::boolean AND (
               EXISTS (SELECT FROM idempotency_keys AS known
                        WHERE known.owner = :owner::uuid
                          AND known.key IN (SELECT idempotency_key FROM given))
               OR EXISTS (SELECT FROM generators
                           WHERE id = :generator_id::uuid
                             AND num_nonnulls(max_pending, max_submissions_per_minute) > 0)))
), kept AS (
    INSERT INTO idempotency_keys (owner, key, body_sha256, work_id, expires_at)
    SELECT :owner::uuid, idempotency_key, decode(body_sha256, 'hex'), id,
           now() + :key_lifetime::interval
      FROM placed
     WHERE :is_alone::boolean AND idempotency_key IS NOT NULL
), submitted AS (
    INSERT INTO work_queue
        (id, work_type, crd_spec, selector_id, priority, max_retries, max_handoffs,
         claim_timeout_seconds, not_before, is_due, pending_since, start_deadline, labels,
         idempotency_key, generator_id, traceparent, events)
    SELECT id, work_type, crd_spec, selector_id, priority, max_retries, max_handoffs,
           claim_timeout_seconds, not_before, starts_at = now(), starts_at,
           starts_at + make_interval(secs => start_within_seconds), labels,
           idempotency_key, :generator_id::uuid, :traceparent::text, 1
      FROM placed
     ORDER BY place
    RETURNING id, created_at, selector_id, is_due, work_type, priority, not_before,
              start_deadline
), labelled AS (
    INSERT INTO work_labels (label, work_id, is_copied)
    SELECT label.key || '=' || label.value, placed.id, true
      FROM placed
     CROSS JOIN LATERAL jsonb_each_text(placed.labels) AS label
), labelled_for_its_generator AS (
    INSERT INTO generator_labels (generator_id, label, work_id)
    SELECT :generator_id::uuid, label.key || '=' || label.value, placed.id
      FROM placed
     CROSS JOIN LATERAL jsonb_each_text(placed.labels) AS label
     WHERE :generator_id::uuid IS NOT NULL
), told AS (
    INSERT INTO work_events (work_id, number, kind, actor, detail)
    SELECT id, 1, 'submitted', :actor, jsonb_strip_nulls(jsonb_build_object(
               'work_type', work_type, 'priority', priority, 'not_before', not_before,
               'start_deadline', start_deadline))
      FROM submitted
), chosen AS (
    SELECT lane.id, lane.targets, count(member.agent_id) AS agents
      FROM lane
      LEFT JOIN agent_selectors AS member ON member.selector_id = lane.id
     GROUP BY lane.id, lane.targets
)
SELECT submitted.id, submitted.created_at, submitted.not_before, submitted.start_deadline,
       submitted.selector_id, submitted.is_due, chosen.targets AS target,
       chosen.agents AS eligible_agents,
       (SELECT name FROM generators WHERE id = :generator_id::uuid) AS generator
  FROM submitted
  JOIN chosen ON chosen.id = submitted.selector_id
