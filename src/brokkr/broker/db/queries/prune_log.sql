-- Delete finished Works that are old enough, the oldest first, with all that is kept of them.
--
-- A row that is being queued again is skipped; if that was committed just before, the lock
-- finds no row.  So what is deleted here is in the log and nowhere else.  Arrays, because they
-- look short to the planner, whatever the limit is.
WITH old AS (
    SELECT id, labels, generator_id, idempotency_key
      FROM work_execution_log
     WHERE outcome = :outcome
       AND completed_at < now() - :age::interval
     ORDER BY completed_at
     LIMIT :limit
       FOR UPDATE SKIP LOCKED
), deleted AS (
    DELETE FROM work_execution_log AS log USING old WHERE log.id = old.id RETURNING log.id
), without_events AS (
    DELETE FROM work_events WHERE work_id = ANY (ARRAY(SELECT id FROM deleted))
), without_claims AS (
    DELETE FROM work_claims WHERE work_id = ANY (ARRAY(SELECT id FROM deleted))
), without_labels AS (
    DELETE FROM work_labels AS labelled
     USING old CROSS JOIN LATERAL jsonb_each_text(old.labels) AS label
     WHERE labelled.label = label.key || '=' || label.value
       AND labelled.work_id = old.id
), without_own_labels AS (
    DELETE FROM generator_labels AS labelled
     USING old CROSS JOIN LATERAL jsonb_each_text(old.labels) AS label
     WHERE labelled.generator_id = old.generator_id
       AND labelled.label = label.key || '=' || label.value
       AND labelled.work_id = old.id
), without_keys AS (
    DELETE FROM idempotency_keys
     WHERE owner = ANY (ARRAY(
               SELECT coalesce(generator_id, '00000000-0000-0000-0000-000000000000') FROM old))
       AND key = ANY (ARRAY(SELECT idempotency_key FROM old))
       AND work_id = ANY (ARRAY(SELECT id FROM deleted))
)
SELECT count(*) FROM deleted
