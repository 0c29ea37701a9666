-- What this agent could claim: highest priority first, then order of arrival.
--
-- One index range for each of the agent's lanes, but those of types that it has declared
-- unavailable; each is read no deeper than the limit.
SELECT lane.id, lane.work_type, lane.priority, lane.created_at
  FROM agents AS me
  JOIN agent_selectors AS mine ON mine.agent_id = me.id
  JOIN selectors AS selector ON selector.id = mine.selector_id
 CROSS JOIN LATERAL (
       SELECT work.id, work.work_type, work.priority, work.created_at, work.seq
         FROM work_queue AS work
        WHERE work.selector_id = mine.selector_id
          AND work.status = 'PENDING'
          AND work.is_due
          AND (work.start_deadline IS NULL OR work.round > 0 OR work.start_deadline > now())
        ORDER BY work.priority DESC, work.seq
        LIMIT :limit
       ) AS lane
 WHERE me.id = :agent_id
   AND me.drained_at IS NULL
   AND NOT coalesce(me.capabilities -> 'unavailable', '{}') ? selector.work_type
   AND (:types::text[] IS NULL OR selector.work_type = ANY (:types::text[]))
 ORDER BY lane.priority DESC, lane.seq
 LIMIT :limit
