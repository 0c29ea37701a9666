-- The agents that have had a Work and handed or given it back, since it was last queued.
SELECT DISTINCT claim.agent_id
  FROM work_queue AS work
  JOIN work_claims AS claim ON claim.work_id = work.id
 WHERE work.id = :work_id
   AND claim.ended_as IN ('handed_off', 'released')
   AND claim.claimed_at > coalesce(work.requeued_at, '-infinity')
 ORDER BY claim.agent_id
