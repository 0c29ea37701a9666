-- Lock a Work for the holder of its newest claim, also if its lease was lost meanwhile and
-- nobody else has claimed.
SELECT work.id, work.handoffs, work.max_handoffs,
       work.cancel_requested_at IS NOT NULL AS cancel_requested
  FROM work_claims AS claim
  JOIN work_queue AS work ON work.id = claim.work_id
 WHERE claim.claim_id = :claim_id
   AND claim.work_id = :work_id
   AND claim.agent_id = :agent_id
   AND work.claim_id = claim.claim_id
   AND (work.claimed_by = :agent_id OR work.status = 'PENDING')
   FOR UPDATE OF work
