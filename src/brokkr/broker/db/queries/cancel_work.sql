-- Cancel a Work: at once if nobody holds it, else flag it for its holder.
--
-- The row is locked before its status is looked at, so of the two branches exactly one is
-- taken, whatever claims or gives back the Work at the same moment.
WITH target AS (
    SELECT id, status FROM work_queue WHERE id = :work_id FOR UPDATE
), flagged AS (
    UPDATE work_queue AS work
       SET cancel_requested_at = coalesce(work.cancel_requested_at, now())
      FROM target
     WHERE work.id = target.id AND target.status = 'CLAIMED'
), removed AS (
    DELETE FROM work_queue AS work
     USING target
     WHERE work.id = target.id AND target.status = 'PENDING'
    RETURNING work.*
), logged AS (
    INSERT INTO work_execution_log
        (id, work_type, created_at, outcome, result_message, crd_spec, selector_id,
         priority, max_retries, claim_timeout_seconds, round, lost_claims,
         cancel_requested_at, progress)
    SELECT id, work_type, created_at, 'cancelled', 'cancelled before an agent executed it',
           crd_spec, selector_id, priority, max_retries, claim_timeout_seconds, round,
           lost_claims, now(), progress
      FROM removed
)
SELECT status FROM target
