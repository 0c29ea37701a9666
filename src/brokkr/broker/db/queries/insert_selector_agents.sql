-- The agents that a new selector selects.
INSERT INTO agent_selectors (agent_id, selector_id)
SELECT unnest(:agent_ids::uuid[]), :selector_id::bigint
