-- Give one pending Work to one agent that it is meant for.
--
-- One conditional UPDATE: of agents that race for the row, the losers wait on its lock,
-- find the status changed, and match nothing.  The claim's history is written with it.
--
-- The agent's row is locked first: its deletion or drain is either seen here, or waits and
-- then finds what was claimed.  What the agent has declared unavailable it does not get.
WITH me AS (
    SELECT id, coalesce(capabilities -> 'unavailable', '{}') AS unavailable
      FROM agents
     WHERE id = :agent_id AND deleted_at IS NULL AND drained_at IS NULL
       FOR SHARE
), claimed AS (
    UPDATE work_queue AS work
       SET status = 'CLAIMED',
           claimed_by = :agent_id,
           claimed_at = now(),
           lease_expires_at = now() + make_interval(secs => work.claim_timeout_seconds),
           lease_check_at = now() + make_interval(secs => work.claim_timeout_seconds),
           claim_id = gen_random_uuid(),
           round = work.round + 1,
           progress = NULL,
           events = work.events + 1
     WHERE work.id = :work_id
       AND work.status = 'PENDING'
       AND work.is_due
       AND (work.start_deadline IS NULL OR work.round > 0 OR work.start_deadline > now())
       AND NOT (SELECT unavailable FROM me) ? work.work_type
       AND EXISTS (
           SELECT FROM agent_selectors AS mine
            WHERE mine.agent_id = (SELECT id FROM me)
              AND mine.selector_id = work.selector_id
       )
    RETURNING work.*
), recorded AS (
    INSERT INTO work_claims (claim_id, work_id, agent_id, round, request_id, place, claimed_at)
    SELECT claim_id, id, claimed_by, round, :request_id::uuid, 1, claimed_at FROM claimed
), told AS (
    INSERT INTO work_events (work_id, number, kind, actor, detail)
    SELECT id, events, 'claimed', :actor::text,
           jsonb_build_object('claim_id', claim_id, 'round', round,
                              'lease_seconds', claim_timeout_seconds)
      FROM claimed
)
SELECT id, claim_id, round, work_type, crd_spec, traceparent, infrastructure_retries,
       claim_timeout_seconds::float AS lease_seconds,
       cancel_requested_at IS NOT NULL AS cancel_requested,
       extract(epoch FROM now() - pending_since)::float AS waited_seconds
  FROM claimed
