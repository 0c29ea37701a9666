-- Renew exactly the listed claims that this agent holds; revive those whose lease was lost
-- or that were unworkable, and whose Work nobody has claimed since (nothing ran twice, so
-- nothing counts as lost).
--
-- A lease of which nine tenths are left is left alone and not even locked: heartbeats come
-- every few seconds and leases last an hour, so nearly all of them cost one read.  Of the
-- others, the queue's row says which claim is the newest, and it is locked before anything
-- is decided, in the order of ids.  From the history only what never changes is used: whose
-- claim it is, of which Work; and how it ended, where an agent said so itself: its heartbeats
-- come one after the other.  So a sweep, a claim or a completion at the same moment is either
-- seen whole or comes after.  `lease_check_at` stays, or the update could not be HOT.  A lease
-- that is longer than it may be was given while the clock was ahead; it is shortened.
--
-- What a deleted agent has lost stays lost; its row is locked, for a revival only, so that
-- its deletion is either seen here, or waits and then finds what was revived.
WITH me AS (
    SELECT id FROM agents WHERE id = :agent_id AND deleted_at IS NULL FOR SHARE
), fresh AS (
    SELECT id, claim_id, round, claim_timeout_seconds, lease_expires_at, cancel_requested_at
      FROM work_queue
     WHERE status = 'CLAIMED'
       AND claimed_by = :agent_id
       AND claim_id = ANY (:claim_ids::uuid[])
       AND lease_expires_at BETWEEN now() + 0.9 * make_interval(secs => claim_timeout_seconds)
                                AND now() + make_interval(secs => claim_timeout_seconds)
), due AS (
    SELECT work.id, work.status, claim.claim_id, claim.agent_id, claim.claimed_at,
           work.status = 'PENDING' AND claim.ended_as IS DISTINCT FROM 'released' AS was_counted
      FROM work_claims AS claim
      JOIN work_queue AS work ON work.id = claim.work_id
     WHERE claim.claim_id = ANY (:claim_ids::uuid[])
       AND claim.claim_id NOT IN (SELECT claim_id FROM fresh)
       AND claim.agent_id = :agent_id
       AND work.claim_id = claim.claim_id
       AND (work.claimed_by = :agent_id
            OR work.status = 'PENDING' AND claim.agent_id = (SELECT id FROM me))
     ORDER BY work.id
       FOR UPDATE OF work
), renewed AS (
    UPDATE work_queue AS work
       SET status = 'CLAIMED',
           claimed_by = due.agent_id,
           claimed_at = due.claimed_at,
           lease_expires_at = now() + make_interval(secs => work.claim_timeout_seconds),
           lease_check_at = least(
               work.lease_check_at,
               now() + make_interval(secs => work.claim_timeout_seconds)
           ),
           lost_claims = work.lost_claims - due.was_counted::int,
           events = work.events + (due.status = 'PENDING')::int
      FROM due
     WHERE work.id = due.id
    RETURNING work.id, work.claim_id, work.round, work.claim_timeout_seconds,
              work.lease_expires_at, work.cancel_requested_at, work.events,
              due.status = 'PENDING' AS was_lost
), revived AS (
    UPDATE work_claims AS claim
       SET ended_at = NULL, ended_as = NULL
      FROM renewed
     WHERE claim.claim_id = renewed.claim_id AND renewed.was_lost
), told AS (
    INSERT INTO work_events (work_id, number, kind, actor, detail)
    SELECT id, events, 'lease_revived', :actor::text,
           jsonb_build_object('claim_id', claim_id, 'round', round)
      FROM renewed
     WHERE was_lost
)
SELECT id AS work_id, claim_id, round,
       extract(epoch FROM lease_expires_at - now())::float AS lease_seconds,
       cancel_requested_at IS NOT NULL AS cancel_requested
  FROM (SELECT id, claim_id, round, lease_expires_at, cancel_requested_at FROM fresh
        UNION ALL
        SELECT id, claim_id, round, lease_expires_at, cancel_requested_at FROM renewed) AS kept
