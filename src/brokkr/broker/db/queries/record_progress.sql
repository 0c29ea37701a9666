-- Keep what the holder of a claim last said; what is new in it is an event.
--
-- A claim is worth `max_events` events, more than any number of attempts needs: after that,
-- what an agent says is kept as the newest progress only, or one could fill the disk.  There
-- are that many if the one so many numbers back is younger than the claim; numbers have no
-- gaps.
WITH recorded AS (
    UPDATE work_queue AS work
       SET progress = :progress::jsonb || jsonb_build_object('reported_at', now()),
           infrastructure_retries = greatest(
               work.infrastructure_retries,
               (:progress::jsonb ->> 'infrastructure_retries')::int),
           events = work.events + before.is_news::int
      FROM (SELECT id, coalesce((progress ->> 'retries')::int, 0) AS retries,
                   infrastructure_retries AS spent,
                   progress - 'reported_at' IS DISTINCT FROM :progress::jsonb
                   AND NOT EXISTS (
                       SELECT FROM work_events AS event
                        WHERE event.work_id = held.id
                          AND event.number = held.events - :max_events + 1
                          AND event.at > held.claimed_at
                   ) AS is_news
              FROM work_queue AS held
             WHERE id = :work_id
               AND claim_id = :claim_id
               AND claimed_by = :agent_id
               AND status = 'CLAIMED'
               FOR UPDATE) AS before
     WHERE work.id = before.id
    RETURNING work.id, work.events, before.is_news, before.retries, before.spent
), told AS (
    INSERT INTO work_events (work_id, number, kind, actor, detail)
    SELECT id, events,
           CASE WHEN (:progress::jsonb ->> 'retries')::int > retries
                  OR (:progress::jsonb ->> 'infrastructure_retries')::int > spent
                THEN 'attempt_failed' ELSE 'progress' END,
           :actor::text, :progress::jsonb
      FROM recorded
     WHERE is_news
)
SELECT id FROM recorded
