-- Move Works from the queue to the execution log: the only way there.
--
-- One statement, so no reader sees a Work twice or not at all.  With an `agent_id` these are
-- that agent's reports: taken from the holder of the newest claim, also if its lease was
-- lost while nobody else has claimed.  The queue's rows are locked before anything is
-- decided, so a second completion waits for the first and then finds no row.  The answer is
-- kept with the claim: a repeat is answered from there.  Without an agent it is the broker
-- that has decided, and has locked the rows.
WITH report AS (
    SELECT * FROM jsonb_to_recordset(:reports::jsonb) AS report (
        work_id uuid, claim_id uuid, outcome text, ended_as text, retries int,
        retryable boolean, message text, result jsonb)
), held AS (
    SELECT work.id, report.outcome, report.ended_as, report.retries, report.retryable,
           report.message, report.result,
           CASE WHEN :agent_id::uuid IS NULL THEN work.claimed_by
                ELSE claim.agent_id END AS agent_id,
           CASE WHEN :agent_id::uuid IS NULL THEN work.claimed_at
                ELSE claim.claimed_at END AS held_since
      FROM report
      JOIN work_queue AS work ON work.id = report.work_id
      LEFT JOIN work_claims AS claim ON claim.claim_id = work.claim_id
     WHERE :agent_id::uuid IS NULL
        OR (work.claim_id = report.claim_id
            AND claim.agent_id = :agent_id::uuid
            AND (work.claimed_by = :agent_id::uuid OR work.status = 'PENDING'))
     ORDER BY work.id
       FOR UPDATE OF work
), moved AS (
    DELETE FROM work_queue AS work
     USING held
     WHERE work.id = held.id
    RETURNING work.*, held.outcome, held.ended_as, held.retries, held.retryable, held.message,
              held.result, held.agent_id, held.held_since
), logged AS (
    INSERT INTO work_execution_log
        (id, work_type, created_at, claimed_at, claimed_by, claim_id, outcome,
         retries_attempted, retryable, result_message, result, crd_spec, selector_id,
         priority, max_retries, max_handoffs, handoffs, claim_timeout_seconds, round,
         lost_claims, not_before, start_deadline, requeued_at, cancel_requested_at, progress,
         labels, generator_id, idempotency_key, traceparent, events)
    SELECT id, work_type, created_at, held_since, agent_id, claim_id, outcome,
           retries, retryable, message,
           -- Several have had it, or it was lost: the log says who, when and how it went.
           CASE WHEN handoffs > 0 OR outcome = 'quarantined'
                THEN coalesce(result, '{}') || (
                    SELECT jsonb_build_object(
                               'total_retries', coalesce(sum(said.retries), 0),
                               'claims', jsonb_agg(jsonb_build_object(
                                   'round', claim.round, 'claim_id', claim.claim_id,
                                   'agent', agent.name, 'claimed_at', claim.claimed_at,
                                   'ended_at', coalesce(claim.ended_at, now()),
                                   'ended_as', coalesce(claim.ended_as, moved.ended_as),
                                   'retries', said.retries, 'message', said.message
                               ) ORDER BY claim.round))
                      FROM work_claims AS claim
                      JOIN agents AS agent ON agent.id = claim.agent_id
                     CROSS JOIN LATERAL (
                           SELECT claim.retries, claim.message
                            WHERE claim.claim_id <> moved.claim_id
                               OR moved.ended_as IS DISTINCT FROM 'completed'
                           UNION ALL
                           SELECT moved.retries, moved.message
                            WHERE claim.claim_id = moved.claim_id
                              AND moved.ended_as = 'completed'
                           ) AS said
                     WHERE claim.work_id = moved.id
                       AND claim.claimed_at > coalesce(moved.requeued_at, '-infinity'))
                ELSE result END,
           crd_spec, selector_id, priority, max_retries, max_handoffs, handoffs,
           claim_timeout_seconds, round,
           lost_claims + (ended_as IS NOT DISTINCT FROM 'lease_lost')::int,
           not_before, start_deadline, requeued_at,
           CASE WHEN outcome = 'cancelled' THEN coalesce(cancel_requested_at, now())
                ELSE cancel_requested_at END,
           progress, labels, generator_id, idempotency_key, traceparent, events + 1
      FROM moved
    RETURNING *
), answered AS (
    SELECT logged.id, logged.claim_id, moved.ended_as,
           to_jsonb(logged) - 'crd_spec' || jsonb_build_object(
               'status', upper(logged.outcome),
               'agent', (SELECT name FROM agents WHERE agents.id = logged.claimed_by),
               'generator', (SELECT name FROM generators
                              WHERE generators.id = logged.generator_id),
               'target', (SELECT targets FROM selectors
                           WHERE selectors.id = logged.selector_id)
           ) AS answer
      FROM logged
      JOIN moved USING (id)
), ended AS (
    UPDATE work_claims AS claim
       SET ended_at = now(),
           ended_as = answered.ended_as,
           answer = CASE answered.ended_as WHEN 'completed' THEN answered.answer END
      FROM answered
     WHERE claim.claim_id = answered.claim_id AND answered.ended_as IS NOT NULL
), told AS (
    INSERT INTO work_events (work_id, number, kind, actor, detail)
    SELECT logged.id, logged.events, coalesce(nullif(:kind::text, ''), logged.outcome),
           :actor::text, jsonb_strip_nulls(jsonb_build_object(
               'outcome', logged.outcome, 'message', logged.result_message,
               'retries', logged.retries_attempted, 'claim_id', logged.claim_id,
               'round', nullif(logged.round, 0)))
      FROM logged
)
SELECT id, answer FROM answered
