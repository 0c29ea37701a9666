-- The agents that have had a Work and handed or given it back, since it was last queued.
--
-- The first few only: so many lanes can come of one Work, and no more.
SELECT agent_id
  FROM (SELECT claim.agent_id
          FROM work_queue AS work
          JOIN work_claims AS claim ON claim.work_id = work.id
         WHERE work.id = :work_id
           AND claim.ended_as IN ('handed_off', 'released')
           AND claim.claimed_at > coalesce(work.requeued_at, '-infinity')
         GROUP BY claim.agent_id
         ORDER BY min(claim.round)
         LIMIT 20) AS first
 ORDER BY agent_id
