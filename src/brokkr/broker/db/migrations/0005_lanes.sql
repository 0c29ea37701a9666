-- A selector is a lane only while Work is queued for it.  `agents` is NULL for a lane; of one
-- that rests (nothing has been queued for some minutes) it holds whom the lane selected last,
-- and `agent_selectors` holds nothing, so that no claim and no relabelled agent looks at it.
--
-- `generator_id`: for whom it became a lane, which counts for the limit of that generator.
-- `idle_since`: since when nothing is queued; of what there is before this migration, since
-- ever, because all of it has been a lane until now.
ALTER TABLE selectors
    ADD COLUMN agents uuid[],
    ADD COLUMN generator_id uuid,
    ADD COLUMN idle_since timestamptz DEFAULT '-infinity';
ALTER TABLE selectors ALTER COLUMN idle_since DROP DEFAULT;
CREATE INDEX lanes ON selectors (id) WHERE agents IS NULL;
CREATE INDEX lanes_by_generator ON selectors (generator_id) WHERE agents IS NULL;

-- Lanes that nothing is queued in, whole ones only if there is no narrower one of the same
-- target: who is in that one follows from who is in this.
CREATE VIEW idle_lanes AS
SELECT lane.id
  FROM selectors AS lane
 WHERE lane.agents IS NULL
   AND (SELECT true FROM work_queue AS work
         WHERE work.selector_id = lane.id AND work.status = 'PENDING' AND work.is_due
         LIMIT 1) IS NULL
   AND (lane.excluded <> '{}'
        OR (SELECT true FROM selectors AS narrow
             WHERE narrow.digest = lane.digest
               AND narrow.work_type = lane.work_type
               AND narrow.excluded <> '{}'
               AND narrow.agents IS NULL
             LIMIT 1) IS NULL)
   AND lane.id NOT IN (SELECT selector_id FROM work_queue WHERE status = 'CLAIMED')
   AND lane.id NOT IN (SELECT selector_id FROM work_queue
                        WHERE status = 'PENDING' AND NOT is_due);

-- Who may claim a Work, as agents are labelled now, and whom a finished one was meant for: the
-- same, until its lane rests; then those whom the lane selected last.
CREATE OR REPLACE VIEW work_targets AS
SELECT work.id AS work_id, selected.agent_id
  FROM (SELECT id, selector_id FROM work_queue
        UNION ALL
        SELECT id, selector_id FROM work_execution_log) AS work
  JOIN selectors AS selector ON selector.id = work.selector_id
 CROSS JOIN LATERAL (
       SELECT member.agent_id
         FROM agent_selectors AS member
        WHERE member.selector_id = selector.id
          AND selector.agents IS NULL
       UNION ALL
       SELECT agent.id
         FROM agents AS agent
        WHERE agent.id = ANY (selector.agents)
          AND agent.deleted_at IS NULL
       ) AS selected;
