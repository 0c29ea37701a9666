-- Give an agent the first few pending Works that are meant for it.
--
-- Rows that another claim is taking are skipped, not waited for, so racing agents take
-- different Works.  Each lane gives up to the limit and the best of all lanes are claimed;
-- between lanes the order is therefore exact only while nobody else claims.
WITH candidate AS (
    SELECT lane.id
      FROM agent_selectors AS mine
     CROSS JOIN LATERAL (
           SELECT work.id, work.priority, work.seq
             FROM work_queue AS work
            WHERE work.selector_id = mine.selector_id
              AND work.status = 'PENDING'
              AND (:types::text[] IS NULL OR work.work_type = ANY (:types::text[]))
            ORDER BY work.priority DESC, work.seq
            LIMIT :limit
              FOR UPDATE SKIP LOCKED
           ) AS lane
     WHERE mine.agent_id = :agent_id
     ORDER BY lane.priority DESC, lane.seq
     LIMIT :limit
), claimed AS (
    UPDATE work_queue AS work
       SET status = 'CLAIMED',
           claimed_by = :agent_id,
           claimed_at = now(),
           lease_expires_at = now() + make_interval(secs => work.claim_timeout_seconds),
           claim_id = gen_random_uuid(),
           round = work.round + 1,
           progress = NULL
      FROM candidate
     WHERE work.id = candidate.id
    RETURNING work.*
), recorded AS (
    INSERT INTO work_claims (claim_id, work_id, agent_id, round, request_id, claimed_at)
    SELECT claim_id, id, claimed_by, round, :request_id::uuid, claimed_at FROM claimed
)
SELECT id, claim_id, round, work_type, crd_spec,
       claim_timeout_seconds::float AS lease_seconds,
       cancel_requested_at IS NOT NULL AS cancel_requested
  FROM claimed
 ORDER BY priority DESC, seq
