-- Flag a claimed Work for its holder; the caller has locked the row.
WITH flagged AS (
    UPDATE work_queue
       SET cancel_requested_at = now(), events = events + 1
     WHERE id = :work_id AND cancel_requested_at IS NULL
    RETURNING id, events, claimed_by
)
INSERT INTO work_events (work_id, number, kind, actor, detail)
SELECT id, events, 'cancel_requested', :actor::text, jsonb_strip_nulls(jsonb_build_object(
           'agent', (SELECT name FROM agents WHERE agents.id = flagged.claimed_by)))
  FROM flagged
