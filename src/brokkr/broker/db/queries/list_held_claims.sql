-- Everything that an agent holds.
SELECT id, claim_id, round, work_type, crd_spec, traceparent, infrastructure_retries,
       greatest(0, extract(epoch FROM lease_expires_at - now()))::float AS lease_seconds,
       cancel_requested_at IS NOT NULL AS cancel_requested
  FROM work_queue
 WHERE status = 'CLAIMED'
   AND claimed_by = :agent_id
 ORDER BY claimed_at, seq
