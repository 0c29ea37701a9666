-- How often in a row, up to its newest claim, agents gave a Work back because they cannot
-- work, and how many agents its whole target selects; both are counted up to a limit.
--
-- Asked only when it is given back once more for that.  The newest claim is still open, and
-- what was before a requeue does not count.
WITH earlier AS (
    SELECT claim.round,
           claim.ended_as = 'released' AND starts_with(claim.message, :prefix) AS is_unable
      FROM work_queue AS work
      JOIN work_claims AS claim ON claim.work_id = work.id AND claim.round < work.round
     WHERE work.id = :work_id
       AND claim.claimed_at > coalesce(work.requeued_at, '-infinity')
     ORDER BY claim.round DESC
     LIMIT 32
)
SELECT (SELECT count(*) FROM earlier
         WHERE round > coalesce((SELECT max(round) FROM earlier WHERE is_unable IS NOT TRUE), 0)
       ) AS releases,
       (SELECT count(*)
          FROM (SELECT
                  FROM work_queue AS work
                  JOIN selectors AS mine ON mine.id = work.selector_id
                  JOIN selectors AS whole
                    ON whole.digest = mine.digest
                   AND whole.work_type = mine.work_type
                   AND whole.excluded = '{}'
                  JOIN agent_selectors AS selected ON selected.selector_id = whole.id
                 WHERE work.id = :work_id
                 LIMIT 32) AS counted) AS agents
