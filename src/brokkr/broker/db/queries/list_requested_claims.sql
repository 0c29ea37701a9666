-- What a claim request was answered before; `is_held` where that still holds.
SELECT claim.work_id AS id, claim.claim_id, claim.round,
       work.id IS NOT NULL AS is_held, work.work_type, work.crd_spec, work.traceparent,
       work.infrastructure_retries,
       greatest(0, extract(epoch FROM work.lease_expires_at - now()))::float AS lease_seconds,
       work.cancel_requested_at IS NOT NULL AS cancel_requested
  FROM work_claims AS claim
  LEFT JOIN work_queue AS work
         ON work.id = claim.work_id
        AND work.claim_id = claim.claim_id
        AND work.claimed_by = claim.agent_id
 WHERE claim.agent_id = :agent_id
   AND claim.request_id = :request_id
 ORDER BY work.priority DESC, work.seq
