-- What this agent could claim: highest priority first, then order of arrival.
--
-- One index range for each of the agent's lanes; each is read no deeper than the limit.
SELECT lane.id, lane.work_type, lane.priority, lane.created_at
  FROM agent_selectors AS mine
 CROSS JOIN LATERAL (
       SELECT work.id, work.work_type, work.priority, work.created_at, work.seq
         FROM work_queue AS work
        WHERE work.selector_id = mine.selector_id
          AND work.status = 'PENDING'
          AND (:types::text[] IS NULL OR work.work_type = ANY (:types::text[]))
        ORDER BY work.priority DESC, work.seq
        LIMIT :limit
       ) AS lane
 WHERE mine.agent_id = :agent_id
 ORDER BY lane.priority DESC, lane.seq
 LIMIT :limit
