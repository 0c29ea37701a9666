-- Give an agent the first few pending Works that are meant for it.
--
-- Each lane is read, not locked, to the given depth; of the best of all lanes the first few
-- that nobody else is taking are locked, so racing agents take different Works and leave
-- nothing locked that they do not take.  What was taken meanwhile is skipped.  If all that
-- was `seen` is being taken by others, the caller looks deeper.
--
-- What the agent itself has lost while it waited is not for this request: who waits may be cut
-- off and still execute it.  A heartbeat revives that claim, and the next request may have it.
--
-- A request is answered once.  Nothing is claimed for one that has been answered; a repeat that
-- comes while the first is being answered waits for it, and if it claims all the same, because
-- it began before, it breaks `one_answer_each_request`.
--
-- The agent's row is locked first: its deletion or drain is either seen here, or waits and
-- then finds what was claimed.  What the agent has declared unavailable it does not get.
WITH me AS (
    SELECT id, coalesce(capabilities -> 'unavailable', '{}') AS unavailable
      FROM agents
     WHERE id = :agent_id AND deleted_at IS NULL AND drained_at IS NULL
       FOR SHARE
), asked AS (
    SELECT pg_advisory_xact_lock(3, hashtext(:request_id::uuid::text)),
           EXISTS (SELECT FROM work_claims AS claim
                    WHERE claim.agent_id = :agent_id AND claim.request_id = :request_id::uuid
                  ) AS before
), head AS (
    SELECT lane.id
      FROM agent_selectors AS mine
      JOIN selectors AS selector ON selector.id = mine.selector_id
     CROSS JOIN LATERAL (
           SELECT work.id, work.priority, work.seq
             FROM work_queue AS work
            WHERE work.selector_id = mine.selector_id
              AND work.status = 'PENDING'
              AND work.is_due
              AND (work.start_deadline IS NULL OR work.round > 0 OR work.start_deadline > now())
            ORDER BY work.priority DESC, work.seq
            LIMIT :depth
           ) AS lane
     WHERE NOT (SELECT before FROM asked)
       AND mine.agent_id = (SELECT id FROM me)
       AND NOT (SELECT unavailable FROM me) ? selector.work_type
       AND (:types::text[] IS NULL OR selector.work_type = ANY (:types::text[]))
     ORDER BY lane.priority DESC, lane.seq
     LIMIT :depth
), candidate AS (
    SELECT work.id
      FROM work_queue AS work
     WHERE work.id = ANY (ARRAY(SELECT id FROM head))
       AND work.status = 'PENDING'
       AND work.is_due
       AND NOT EXISTS (
           SELECT FROM work_claims AS lapsed
            WHERE lapsed.claim_id = work.claim_id
              AND lapsed.agent_id = :agent_id
              AND lapsed.ended_at > now() - make_interval(secs => :waited)
       )
     ORDER BY work.priority DESC, work.seq
     LIMIT :limit
       FOR UPDATE SKIP LOCKED
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
    INSERT INTO work_claims (claim_id, work_id, agent_id, round, request_id, place, claimed_at)
    SELECT claim_id, id, claimed_by, round, :request_id::uuid, row_number() OVER (), claimed_at
      FROM claimed
), told AS (
    INSERT INTO work_events (work_id, number, kind, actor, detail)
    SELECT id, events, 'claimed', :actor::text,
           jsonb_build_object('claim_id', claim_id, 'round', round,
                              'lease_seconds', claim_timeout_seconds)
      FROM claimed
)
SELECT looked.seen, id, claim_id, round, work_type, selector_id, crd_spec, traceparent,
       infrastructure_retries,
       claim_timeout_seconds::float AS lease_seconds,
       cancel_requested_at IS NOT NULL AS cancel_requested,
       extract(epoch FROM now() - pending_since)::float AS waited_seconds
  FROM (SELECT count(*) AS seen FROM head) AS looked
  LEFT JOIN claimed ON true
 ORDER BY priority DESC, seq
