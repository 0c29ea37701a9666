-- Flag a claimed Work for its holder; the caller has locked the row.
WITH flagged AS (
    UPDATE work_queue
       SET cancel_requested_at = now(), events = events + 1
     WHERE id = :work_id AND cancel_requested_at IS NULL
    RETURNING id, events
)
INSERT INTO work_events (work_id, number, kind, actor, detail)
SELECT id, events, 'cancel_requested', :actor, '{}' FROM flagged
