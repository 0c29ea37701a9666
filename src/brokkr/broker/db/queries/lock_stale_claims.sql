-- Lock claims whose lease ran out.
--
-- Those in use are skipped, so a lease that is being renewed is not swept, and the lock
-- makes sure of it until the sweep is over.
SELECT id, claim_id, claimed_by AS agent_id, lost_claims,
       cancel_requested_at IS NOT NULL AS cancel_requested
  FROM work_queue
 WHERE status = 'CLAIMED'
   AND lease_check_at < now()
   AND lease_expires_at < now()
 ORDER BY lease_check_at
 LIMIT :limit
   FOR UPDATE SKIP LOCKED
