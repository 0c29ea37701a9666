-- Put a finished Work back into the queue: same id, counters reset, history kept.
--
-- It goes back to the lane of its whole target, also if agents that had tried it were left
-- out.  How it had ended is in the event.  The log's row is locked by its deletion, so of
-- two requeues one finds nothing.  Nothing is queued while that target is no lane; it is
-- locked, as in find_selector.sql, or it could come to rest now.
WITH whole AS (
    SELECT whole.id
      FROM work_execution_log AS log
      JOIN selectors AS mine ON mine.id = log.selector_id
      JOIN selectors AS whole
        ON whole.digest = mine.digest
       AND whole.work_type = mine.work_type
       AND whole.excluded = '{}'
     WHERE log.id = :work_id
       AND whole.agents IS NULL
       FOR KEY SHARE OF whole
), taken AS (
    DELETE FROM work_execution_log
     WHERE id = :work_id
       AND crd_spec IS NOT NULL
       AND EXISTS (SELECT FROM whole)
    RETURNING *
), queued AS (
    INSERT INTO work_queue
        (id, created_at, work_type, crd_spec, selector_id, priority, max_retries,
         max_handoffs, claim_timeout_seconds, round, labels, generator_id, idempotency_key,
         traceparent, requeued_at, events)
    SELECT taken.id, taken.created_at, taken.work_type, taken.crd_spec, whole.id,
           taken.priority, taken.max_retries, taken.max_handoffs,
           taken.claim_timeout_seconds, taken.round, taken.labels, taken.generator_id,
           taken.idempotency_key, taken.traceparent, now(), taken.events + 1
      FROM taken
     CROSS JOIN whole
    RETURNING id, selector_id, events
), told AS (
    INSERT INTO work_events (work_id, number, kind, actor, detail)
    SELECT queued.id, queued.events, 'requeued', :actor::text,
           jsonb_strip_nulls(jsonb_build_object(
               'reason', nullif(:reason::text, ''), 'outcome', taken.outcome,
               'message', taken.result_message, 'retries', taken.retries_attempted,
               'result', taken.result, 'completed_at', taken.completed_at))
      FROM queued JOIN taken USING (id)
)
SELECT id, selector_id FROM queued
