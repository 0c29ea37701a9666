-- Of the agents that wait, the one that has waited longest among those selected.
SELECT selected.agent_id
  FROM unnest(:waiting::uuid[]) WITH ORDINALITY AS waiting (agent_id, place)
  JOIN agent_selectors AS selected USING (agent_id)
 WHERE selected.selector_id = :selector_id
 ORDER BY waiting.place
 LIMIT 1
