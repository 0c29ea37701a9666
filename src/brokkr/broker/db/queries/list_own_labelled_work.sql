-- Work of a generator with some labels in whatever state, newest first.
--
-- As list_labelled_work.sql, but nothing is read of others' Work: how long it takes says nothing
-- about whether others use that label.
-- `OFFSET 0` keeps it this way round: the planner does not know that each is in one of both.
WITH found AS (
    SELECT labelled.work_id AS id
      FROM generator_labels AS labelled
     CROSS JOIN LATERAL (
           SELECT
             FROM works AS work
            WHERE work.id = labelled.work_id
              AND work.labels @> :labels
              AND work.work_type = :type?
              AND work.claimed_by = :agent_id?
              AND work.created_at >= :since?
           OFFSET 0
           ) AS wanted
     WHERE labelled.generator_id = :generator_id
       AND labelled.label = :label
       AND labelled.work_id >= :since_id?
       AND labelled.work_id < :before_id?
     ORDER BY labelled.work_id DESC
     LIMIT :limit
)
SELECT work.id, work.work_type, work.status, work.created_at, work.claimed_at,
       work.completed_at, work.claimed_by, work.round, work.priority, work.max_retries,
       work.claim_timeout_seconds, work.lost_claims, work.max_handoffs, work.handoffs,
       work.not_before, work.start_deadline, work.requeued_at, work.cancel_requested_at,
       work.progress, work.labels, work.generator_id, work.success, work.retries_attempted,
       work.result_message, work.result, work.queue_seconds, work.run_seconds,
       agent.name AS agent, generator.name AS generator, selector.targets AS target,
       CASE WHEN work.lease_expires_at IS NOT NULL
            THEN greatest(0, extract(epoch FROM work.lease_expires_at - now()))::float
       END AS lease_seconds
  FROM found
  JOIN works AS work USING (id)
  JOIN selectors AS selector ON selector.id = work.selector_id
  LEFT JOIN agents AS agent ON agent.id = work.claimed_by
  LEFT JOIN generators AS generator ON generator.id = work.generator_id
 ORDER BY work.id DESC
