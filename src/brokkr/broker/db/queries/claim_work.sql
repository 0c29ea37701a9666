-- Give one pending Work to one agent that it is meant for.
--
-- One conditional UPDATE: of agents that race for the row, the losers wait on its lock,
-- find the status changed, and match nothing.  The claim's history is written with it.
WITH claimed AS (
    UPDATE work_queue AS work
       SET status = 'CLAIMED',
           claimed_by = :agent_id,
           claimed_at = now(),
           lease_expires_at = now() + make_interval(secs => work.claim_timeout_seconds),
           claim_id = gen_random_uuid(),
           round = work.round + 1,
           progress = NULL
     WHERE work.id = :work_id
       AND work.status = 'PENDING'
       AND EXISTS (
           SELECT FROM agent_selectors AS mine
            WHERE mine.agent_id = :agent_id AND mine.selector_id = work.selector_id
       )
    RETURNING work.*
), recorded AS (
    INSERT INTO work_claims (claim_id, work_id, agent_id, round, request_id, claimed_at)
    SELECT claim_id, id, claimed_by, round, :request_id::uuid, claimed_at FROM claimed
)
SELECT id, claim_id, round, work_type, crd_spec,
       claim_timeout_seconds::float AS lease_seconds,
       cancel_requested_at IS NOT NULL AS cancel_requested
  FROM claimed
