-- Make Works PENDING again; the caller has locked their rows and decided why.
--
-- If the claim is revivable (after a lost lease, or from an agent that cannot work now),
-- `claim_id` stays, so that the holder may revive the claim until somebody else has taken the
-- Work; otherwise it is cleared and the claim is over for good.
WITH ended AS (
    UPDATE work_claims AS claim
       SET ended_at = now(), ended_as = :ended_as::text,
           retries = :retries::int, message = :message::text
      FROM work_queue AS work
     WHERE work.id = ANY (:work_ids::uuid[])
       AND claim.claim_id = work.claim_id
), pending AS (
    UPDATE work_queue AS work
       SET status = 'PENDING',
           claimed_by = NULL,
           claimed_at = NULL,
           lease_expires_at = NULL,
           lease_check_at = NULL,
           claim_id = CASE WHEN :is_revivable::boolean THEN work.claim_id END,
           lost_claims = work.lost_claims + (:ended_as::text = 'lease_lost')::int,
           handoffs = work.handoffs + (:ended_as::text = 'handed_off')::int,
           infrastructure_retries = greatest(
               work.infrastructure_retries, :infrastructure_retries::int),
           not_before = now() + nullif(:delay::interval, '0'),
           is_due = :delay::interval <= '0',
           pending_since = now() + :delay::interval,
           events = work.events + 1
      FROM (SELECT held.id, held.claim_id, agent.name AS agent
              FROM work_queue AS held
              LEFT JOIN work_claims AS claim ON claim.claim_id = held.claim_id
              LEFT JOIN agents AS agent ON agent.id = claim.agent_id
             WHERE held.id = ANY (:work_ids::uuid[])) AS before
     WHERE work.id = before.id
    RETURNING work.id, work.selector_id, work.is_due, work.events, work.round, work.lost_claims,
              work.not_before, before.claim_id, before.agent
), told AS (
    INSERT INTO work_events (work_id, number, kind, actor, detail)
    SELECT id, events, :kind::text, :actor::text, jsonb_strip_nulls(jsonb_build_object(
               'agent', agent, 'claim_id', claim_id, 'round', round,
               'message', :message::text, 'retries', :retries::int,
               'lost_claims', CASE :ended_as::text WHEN 'lease_lost' THEN lost_claims END,
               'not_before', not_before))
      FROM pending
)
SELECT id, selector_id, is_due FROM pending
