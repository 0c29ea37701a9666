-- Lock those Works of some claims that this agent holds; in the order of ids, as by everyone
-- who locks several.
SELECT id, claim_id, cancel_requested_at IS NOT NULL AS cancel_requested
  FROM work_queue
 WHERE status = 'CLAIMED'
   AND claimed_by = :agent_id
   AND claim_id = ANY (:claim_ids::uuid[])
 ORDER BY id
   FOR UPDATE
