-- Queue Works, in the order in which they are given, each with its first event.
--
-- A start deadline counts from when a Work may start, so a delayed one is not over before.
WITH given AS (
    SELECT work.*, greatest(now(), work.not_before) AS starts_at
      FROM ROWS FROM (
               jsonb_to_recordset(:works::jsonb) AS (
                   id uuid, work_type text, crd_spec text, selector_id bigint, priority int,
                   max_retries int, max_handoffs int, claim_timeout_seconds int,
                   not_before timestamptz, start_within_seconds int, labels jsonb,
                   idempotency_key text)
           ) WITH ORDINALITY AS work (
               id, work_type, crd_spec, selector_id, priority, max_retries, max_handoffs,
               claim_timeout_seconds, not_before, start_within_seconds, labels,
               idempotency_key, place)
), submitted AS (
    INSERT INTO work_queue
        (id, work_type, crd_spec, selector_id, priority, max_retries, max_handoffs,
         claim_timeout_seconds, not_before, is_due, pending_since, start_deadline, labels,
         idempotency_key, generator_id, traceparent, events)
    SELECT id, work_type, crd_spec, selector_id, priority, max_retries, max_handoffs,
           claim_timeout_seconds, not_before, starts_at = now(), starts_at,
           starts_at + make_interval(secs => start_within_seconds), labels,
           idempotency_key, :generator_id::uuid, :traceparent::text, 1
      FROM given
     ORDER BY place
    RETURNING id, selector_id, is_due, work_type, priority, not_before, start_deadline
), labelled AS (
    INSERT INTO work_labels (label, work_id)
    SELECT label.key || '=' || label.value, given.id
      FROM given
     CROSS JOIN LATERAL jsonb_each_text(given.labels) AS label
), told AS (
    INSERT INTO work_events (work_id, number, kind, actor, detail)
    SELECT id, 1, 'submitted', :actor, jsonb_strip_nulls(jsonb_build_object(
               'work_type', work_type, 'priority', priority, 'not_before', not_before,
               'start_deadline', start_deadline))
      FROM submitted
)
SELECT id, selector_id, is_due FROM submitted
