-- Living agents by name, with all that says whether one could claim Work of a lane.
SELECT agent.id, agent.name, agent.labels, agent.annotations, agent.drained_at,
       agent.last_seen_at, agent.capacity, agent.capabilities,
       EXISTS (SELECT FROM agent_selectors AS mine
                WHERE mine.agent_id = agent.id
                  AND mine.selector_id = :selector_id) AS is_in_lane
  FROM agents AS agent
 WHERE agent.deleted_at IS NULL
   AND agent.name > :after?
 ORDER BY agent.name
 LIMIT :limit
