-- Keep what the holder of a claim last said; what is new in it is an event.
WITH recorded AS (
    UPDATE work_queue AS work
       SET progress = :progress::jsonb || jsonb_build_object('reported_at', now()),
           events = work.events + before.is_news::int
      FROM (SELECT id, progress - 'reported_at' IS DISTINCT FROM :progress::jsonb AS is_news,
                   coalesce((progress ->> 'retries')::int, 0) AS retries
              FROM work_queue
             WHERE id = :work_id
               AND claim_id = :claim_id
               AND claimed_by = :agent_id
               AND status = 'CLAIMED'
               FOR UPDATE) AS before
     WHERE work.id = before.id
    RETURNING work.id, work.events, before.is_news, before.retries
), told AS (
    INSERT INTO work_events (work_id, number, kind, actor, detail)
    SELECT id, events,
           CASE WHEN (:progress::jsonb ->> 'retries')::int > retries
                THEN 'attempt_failed' ELSE 'progress' END,
           :actor::text, :progress::jsonb
      FROM recorded
     WHERE is_news
)
SELECT id FROM recorded
