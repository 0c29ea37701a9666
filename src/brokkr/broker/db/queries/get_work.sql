-- Some Works, wherever they are.
WITH asked AS (
    SELECT * FROM works WHERE id = ANY (:work_ids::uuid[])
), eligible AS (
    SELECT selector_id, count(*) AS agents
      FROM agent_selectors
     WHERE selector_id IN (SELECT selector_id FROM asked)
     GROUP BY selector_id
)
SELECT work.*, agent.name AS agent, generator.name AS generator,
       selector.targets AS target,
       CASE WHEN work.lease_expires_at IS NOT NULL
            THEN greatest(0, extract(epoch FROM work.lease_expires_at - now()))::float
       END AS lease_seconds,
       coalesce(cardinality(selector.agents), eligible.agents, 0) AS eligible_agents
  FROM asked AS work
  JOIN selectors AS selector ON selector.id = work.selector_id
  LEFT JOIN eligible ON eligible.selector_id = work.selector_id
  LEFT JOIN agents AS agent ON agent.id = work.claimed_by
  LEFT JOIN generators AS generator ON generator.id = work.generator_id
