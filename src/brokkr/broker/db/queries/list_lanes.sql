-- The lanes of agents, but those of types that an agent has declared unavailable; who is
-- drained or deleted has none.
SELECT mine.agent_id, mine.selector_id, selector.work_type
  FROM agent_selectors AS mine
  JOIN agents AS agent ON agent.id = mine.agent_id
  JOIN selectors AS selector ON selector.id = mine.selector_id
 WHERE mine.agent_id = ANY (:agent_ids::uuid[])
   AND agent.drained_at IS NULL
   AND agent.deleted_at IS NULL
   AND NOT coalesce(agent.capabilities -> 'unavailable', '{}') ? selector.work_type
