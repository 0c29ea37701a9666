-- Lock a queued Work, to decide what becomes of it.
SELECT id, status, claim_id, claimed_by, round, handoffs, max_handoffs,
       cancel_requested_at IS NOT NULL AS cancel_requested
  FROM work_queue
 WHERE id = :work_id
   FOR UPDATE
