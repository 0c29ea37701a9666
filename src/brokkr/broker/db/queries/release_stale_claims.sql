-- Give back claims whose lease ran out.
--
-- A Work whose cancel was requested ends as cancelled instead, and one that has lost its
-- claim too often ends in quarantine, with who had it and when.  Rows are locked first and
-- those in use are skipped, so a lease that is being renewed is not swept.  `claim_id`
-- stays, so that its holder may revive the claim until somebody else has taken the Work.
WITH stale AS (
    SELECT id, claim_id, claimed_by, claimed_at, cancel_requested_at,
           CASE WHEN cancel_requested_at IS NOT NULL THEN 'cancelled'
                WHEN lost_claims + 1 >= :max_lost_claims THEN 'quarantined' END AS outcome
      FROM work_queue
     WHERE status = 'CLAIMED'
       AND lease_expires_at < now()
     ORDER BY lease_expires_at
     LIMIT :limit
       FOR UPDATE SKIP LOCKED
), ended AS (
    UPDATE work_claims AS claim
       SET ended_at = now(), ended_as = 'lease_lost'
      FROM stale
     WHERE claim.claim_id = stale.claim_id
), removed AS (
    DELETE FROM work_queue AS work
     USING stale
     WHERE work.id = stale.id AND stale.outcome IS NOT NULL
    RETURNING work.*, stale.outcome
), logged AS (
    INSERT INTO work_execution_log
        (id, work_type, created_at, claimed_at, claimed_by, claim_id, outcome,
         result_message, result, crd_spec, selector_id, priority, max_retries,
         claim_timeout_seconds, round, lost_claims, cancel_requested_at, progress)
    SELECT id, work_type, created_at, claimed_at, claimed_by, claim_id, outcome,
           CASE outcome
               WHEN 'cancelled' THEN 'cancelled; its agent was not heard of any more'
               ELSE format('its claim was lost %s times: who took it was not heard of any more',
                           lost_claims + 1)
           END,
           (SELECT jsonb_build_object('lost_claims', jsonb_agg(jsonb_build_object(
                       'claim_id', claim.claim_id, 'agent', agent.name,
                       'claimed_at', claim.claimed_at,
                       'lost_at', coalesce(claim.ended_at, now())) ORDER BY claim.round))
              FROM work_claims AS claim
              JOIN agents AS agent ON agent.id = claim.agent_id
             WHERE claim.work_id = removed.id),
           crd_spec, selector_id, priority, max_retries, claim_timeout_seconds, round,
           lost_claims + 1, cancel_requested_at, progress
      FROM removed
), released AS (
    UPDATE work_queue AS work
       SET status = 'PENDING',
           claimed_by = NULL,
           claimed_at = NULL,
           lease_expires_at = NULL,
           lost_claims = work.lost_claims + 1
      FROM stale
     WHERE work.id = stale.id AND stale.outcome IS NULL
    RETURNING pg_notify('brokkr', concat_ws(' ', 'work', work.selector_id, work.work_type,
                                            work.id))
)
SELECT id AS work_id, claimed_by AS agent_id, outcome FROM stale
