-- Queued and finished Work together, newest first.
--
-- Ids begin with the time at which they were made, so their order is the order of arrival,
-- and the primary keys of both tables serve it; `since_id` bounds how far back they are read.
WITH page AS (
    SELECT id, work_type, status, created_at, claimed_at, completed_at, claimed_by, round,
           priority, max_retries, claim_timeout_seconds, lease_expires_at, lost_claims,
           max_handoffs, handoffs, not_before, start_deadline, requeued_at,
           cancel_requested_at, progress, labels, generator_id, success, retries_attempted,
           result_message, result, queue_seconds, run_seconds, selector_id
      FROM works
     WHERE (:type::text IS NULL OR work_type = :type::text)
       AND (:states::text[] IS NULL OR status = ANY (:states::text[]))
       AND (:agent_id::uuid IS NULL OR claimed_by = :agent_id::uuid)
       AND (:since::timestamptz IS NULL OR created_at >= :since::timestamptz)
       AND (:since_id::uuid IS NULL OR id >= :since_id::uuid)
       AND (:before_id::uuid IS NULL OR id < :before_id::uuid)
     ORDER BY id DESC
     LIMIT :limit
)
SELECT page.*, agent.name AS agent, generator.name AS generator,
       selector.targets AS target,
       CASE WHEN page.lease_expires_at IS NOT NULL
            THEN greatest(0, extract(epoch FROM page.lease_expires_at - now()))::float
       END AS lease_seconds
  FROM page
  JOIN selectors AS selector ON selector.id = page.selector_id
  LEFT JOIN agents AS agent ON agent.id = page.claimed_by
  LEFT JOIN generators AS generator ON generator.id = page.generator_id
 ORDER BY page.id DESC
