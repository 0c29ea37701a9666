-- What is new for those who follow Works: of each the next few events, from behind a number on.
--
-- One statement, however many follow, and one snapshot: a Work that is not queued any more
-- and has fewer events left than the limit is over, and its last event is among them.
-- Nothing is returned for a Work that is queued and has no news.
SELECT followed.work_id, followed.after, event.number, event.at, event.kind, event.actor,
       event.detail, queued.id IS NOT NULL AS is_queued
  FROM unnest(:work_ids::uuid[], :afters::int[]) AS followed (work_id, after)
  LEFT JOIN work_queue AS queued ON queued.id = followed.work_id
  LEFT JOIN LATERAL (
       SELECT number, at, kind, actor, detail
         FROM work_events
        WHERE work_id = followed.work_id
          AND number > followed.after
        ORDER BY number
        LIMIT :limit
       ) AS event ON true
 WHERE event.number IS NOT NULL OR queued.id IS NULL
 ORDER BY followed.work_id, followed.after, event.number
