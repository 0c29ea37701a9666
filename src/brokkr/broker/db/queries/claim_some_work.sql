-- Give an agent the first few pending Works that are meant for it.
--
-- Rows that another claim is taking are skipped, not waited for, so racing agents take
-- different Works.  Each lane gives up to the limit and the best of all lanes are claimed;
-- between lanes the order is therefore exact only while nobody else claims.
WITH candidate AS (
    SELECT lane.id
      FROM agents AS me
      JOIN agent_selectors AS mine ON mine.agent_id = me.id
      JOIN selectors AS selector ON selector.id = mine.selector_id
     CROSS JOIN LATERAL (
           SELECT work.id, work.priority, work.seq
             FROM work_queue AS work
            WHERE work.selector_id = mine.selector_id
              AND work.status = 'PENDING'
              AND work.is_due
              AND (work.start_deadline IS NULL OR work.round > 0 OR work.start_deadline > now())
            ORDER BY work.priority DESC, work.seq
            LIMIT :limit
              FOR UPDATE SKIP LOCKED
           ) AS lane
     WHERE me.id = :agent_id
       AND me.drained_at IS NULL
       AND (:types::text[] IS NULL OR selector.work_type = ANY (:types::text[]))
     ORDER BY lane.priority DESC, lane.seq
     LIMIT :limit
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
      FROM candidate
     WHERE work.id = candidate.id
    RETURNING work.*
), recorded AS (
    INSERT INTO work_claims (claim_id, work_id, agent_id, round, request_id, claimed_at)
    SELECT claim_id, id, claimed_by, round, :request_id::uuid, claimed_at FROM claimed
), told AS (
    INSERT INTO work_events (work_id, number, kind, actor, detail)
    SELECT id, events, 'claimed', :actor::text,
           jsonb_build_object('claim_id', claim_id, 'round', round)
      FROM claimed
)
SELECT id, claim_id, round, work_type, crd_spec, traceparent,
       claim_timeout_seconds::float AS lease_seconds,
       cancel_requested_at IS NOT NULL AS cancel_requested,
       extract(epoch FROM now() - pending_since)::float AS waited_seconds
  FROM claimed
 ORDER BY priority DESC, seq
