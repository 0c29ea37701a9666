-- Lock Works for the holder of their newest claims, also where the lease was lost meanwhile
-- and nobody else has claimed; in the order of ids, as by everyone who locks several.
SELECT work.id, work.claim_id, work.handoffs, work.max_handoffs,
       work.cancel_requested_at IS NOT NULL AS cancel_requested
  FROM unnest(:work_ids::uuid[], :claim_ids::uuid[]) AS report (work_id, claim_id)
  JOIN work_claims AS claim USING (claim_id, work_id)
  JOIN work_queue AS work ON work.id = claim.work_id
 WHERE claim.agent_id = :agent_id
   AND work.claim_id = claim.claim_id
   AND (work.claimed_by = :agent_id OR work.status = 'PENDING')
 ORDER BY work.id
   FOR UPDATE OF work
