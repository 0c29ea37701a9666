-- One Work, wherever it is.
SELECT work.*, agent.name AS agent, generator.name AS generator,
       selector.targets AS target,
       CASE WHEN work.lease_expires_at IS NOT NULL
            THEN greatest(0, extract(epoch FROM work.lease_expires_at - now()))::float
       END AS lease_seconds,
       (SELECT count(*) FROM agent_selectors AS selected
         WHERE selected.selector_id = work.selector_id) AS eligible_agents
  FROM works AS work
  JOIN selectors AS selector ON selector.id = work.selector_id
  LEFT JOIN agents AS agent ON agent.id = work.claimed_by
  LEFT JOIN generators AS generator ON generator.id = work.generator_id
 WHERE work.id = :work_id
