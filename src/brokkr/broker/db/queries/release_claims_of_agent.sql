-- Give back all that an agent holds, because the agent is gone for good.
--
-- `claim_id` is cleared: nothing may revive these claims.  A Work whose cancel was
-- requested ends as cancelled instead.
WITH held AS (
    SELECT id, claim_id, cancel_requested_at
      FROM work_queue
     WHERE status = 'CLAIMED' AND claimed_by = :agent_id
     ORDER BY id
       FOR UPDATE
), ended AS (
    UPDATE work_claims AS claim
       SET ended_at = now(), ended_as = 'released'
      FROM held
     WHERE claim.claim_id = held.claim_id
), removed AS (
    DELETE FROM work_queue AS work
     USING held
     WHERE work.id = held.id AND held.cancel_requested_at IS NOT NULL
    RETURNING work.*
), logged AS (
    INSERT INTO work_execution_log
        (id, work_type, created_at, claimed_at, claimed_by, claim_id, outcome,
         result_message, crd_spec, selector_id, priority, max_retries,
         claim_timeout_seconds, round, lost_claims, cancel_requested_at, progress)
    SELECT id, work_type, created_at, claimed_at, claimed_by, claim_id, 'cancelled',
           'cancelled; its agent was deleted', crd_spec, selector_id, priority, max_retries,
           claim_timeout_seconds, round, lost_claims, cancel_requested_at, progress
      FROM removed
), released AS (
    UPDATE work_queue AS work
       SET status = 'PENDING',
           claimed_by = NULL,
           claimed_at = NULL,
           lease_expires_at = NULL,
           claim_id = NULL
      FROM held
     WHERE work.id = held.id AND held.cancel_requested_at IS NULL
    RETURNING work.id, work.selector_id, work.work_type
)
SELECT id, pg_notify('brokkr', concat_ws(' ', 'work', selector_id, work_type, id))
  FROM released
