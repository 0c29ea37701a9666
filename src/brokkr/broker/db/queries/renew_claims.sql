-- Renew exactly the listed claims that this agent holds; revive those whose lease was lost
-- and whose Work nobody has claimed since (nothing ran twice, so nothing counts as lost).
--
-- The queue row says which claim is the newest, and it is locked before anything is
-- decided, in the order of ids.  From the history only what never changes is used: whose
-- claim it is, of which Work.  So a sweep, a claim or a completion at the same moment is
-- either seen whole or comes after.
WITH held AS (
    SELECT work.id, work.status, claim.claim_id, claim.agent_id, claim.claimed_at
      FROM work_claims AS claim
      JOIN work_queue AS work ON work.id = claim.work_id
     WHERE claim.claim_id = ANY (:claim_ids::uuid[])
       AND claim.agent_id = :agent_id
       AND work.claim_id = claim.claim_id
       AND (work.claimed_by = :agent_id OR work.status = 'PENDING')
     ORDER BY work.id
       FOR UPDATE OF work
), renewed AS (
    UPDATE work_queue AS work
       SET status = 'CLAIMED',
           claimed_by = held.agent_id,
           claimed_at = held.claimed_at,
           lease_expires_at = now() + make_interval(secs => work.claim_timeout_seconds),
           lost_claims = work.lost_claims - (held.status = 'PENDING')::int
      FROM held
     WHERE work.id = held.id
    RETURNING work.*
), revived AS (
    UPDATE work_claims AS claim
       SET ended_at = NULL, ended_as = NULL
      FROM held
     WHERE claim.claim_id = held.claim_id AND held.status = 'PENDING'
)
SELECT id AS work_id, claim_id, round,
       claim_timeout_seconds::float AS lease_seconds,
       cancel_requested_at IS NOT NULL AS cancel_requested
  FROM renewed
