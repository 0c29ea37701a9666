-- Queued and finished Work together, newest first.
--
-- Ids begin with the time at which they were made, so their order is the order of arrival.
-- Each of the three parts has indexes of its own in this order, and is read no deeper than
-- the page, or is not read at all.  What is claimed is never much.  Labels have an index too
-- (list_labelled_work.sql), which leads where the rarest of them is rarer than the rest; for a
-- generator, that of its own labels.
WITH found AS (
    (SELECT id
       FROM work_queue
      WHERE status = 'PENDING'
        AND :pending::boolean
        AND work_type = :type?
        AND generator_id = :generator_id?
        AND id IN (SELECT work_id FROM work_labels WHERE label = :label?)
        AND (generator_id, id) IN (SELECT generator_id, work_id FROM generator_labels WHERE label = :own_label?)
        AND labels @> :labels?
        AND id >= :since_id?
        AND created_at >= :since?
        AND id < :before_id?
      ORDER BY id DESC
      LIMIT :limit)
    UNION ALL
    (SELECT id
       FROM work_queue
      WHERE status = 'CLAIMED'
        AND :claimed::boolean
        AND claimed_by = :agent_id?
        AND work_type = :type?
        AND generator_id = :generator_id?
        AND labels @> :labels?
        AND id >= :since_id?
        AND created_at >= :since?
        AND id < :before_id?
      ORDER BY id DESC
      LIMIT :limit)
    UNION ALL
    (SELECT id
       FROM work_execution_log
      WHERE :finished::boolean
        AND outcome = :outcome?
        AND outcome = ANY (:outcomes?::text[])
        AND claimed_by = :agent_id?
        AND work_type = :type?
        AND generator_id = :generator_id?
        AND id IN (SELECT work_id FROM work_labels WHERE label = :label?)
        AND (generator_id, id) IN (SELECT generator_id, work_id FROM generator_labels WHERE label = :own_label?)
        AND labels @> :labels?
        AND id >= :since_id?
        AND created_at >= :since?
        AND id < :before_id?
      ORDER BY id DESC
      LIMIT :limit)
    ORDER BY id DESC
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
