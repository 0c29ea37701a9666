-- Move a Work from the queue to the execution log, with its holder's report.
--
-- One statement, so no reader sees the Work twice or not at all.  The queue row is locked
-- before anything is decided; a second completion waits for the first and then finds no
-- row.  Accepted from the holder, and from the holder whose lease was lost while nobody
-- else has claimed.  The answer is kept with the claim: a repeat is answered from there.
WITH held AS (
    SELECT work.id, claim.agent_id, claim.claimed_at
      FROM work_claims AS claim
      JOIN work_queue AS work ON work.id = claim.work_id
     WHERE claim.claim_id = :claim_id
       AND claim.work_id = :work_id
       AND claim.agent_id = :agent_id
       AND work.claim_id = claim.claim_id
       AND (work.claimed_by = :agent_id OR work.status = 'PENDING')
       FOR UPDATE OF work
), moved AS (
    DELETE FROM work_queue AS work
     USING held
     WHERE work.id = held.id
    RETURNING work.*, held.agent_id, held.claimed_at AS held_since
), logged AS (
    INSERT INTO work_execution_log
        (id, work_type, created_at, claimed_at, claimed_by, claim_id, outcome,
         retries_attempted, retryable, result_message, result, crd_spec, selector_id,
         priority, max_retries, claim_timeout_seconds, round, lost_claims,
         cancel_requested_at, progress)
    SELECT id, work_type, created_at, held_since, agent_id, claim_id, :outcome::text,
           :retries::int, :retryable::boolean, :message::text, :result::jsonb, crd_spec, selector_id,
           priority, max_retries, claim_timeout_seconds, round, lost_claims,
           cancel_requested_at, progress
      FROM moved
    RETURNING *
), ended AS (
    UPDATE work_claims AS claim
       SET ended_at = logged.completed_at,
           ended_as = 'completed',
           answer = to_jsonb(logged) - 'crd_spec' || jsonb_build_object(
               'status', upper(logged.outcome),
               'agent', (SELECT name FROM agents WHERE agents.id = logged.claimed_by),
               'target', (SELECT targets FROM selectors WHERE selectors.id = selector_id)
           )
      FROM logged
     WHERE claim.claim_id = logged.claim_id
    RETURNING claim.answer
)
SELECT answer FROM ended
