-- Lock all that an agent holds, because the agent is gone for good.
SELECT id, claim_id, cancel_requested_at IS NOT NULL AS cancel_requested
  FROM work_queue
 WHERE status = 'CLAIMED' AND claimed_by = :agent_id
 ORDER BY id
   FOR UPDATE
