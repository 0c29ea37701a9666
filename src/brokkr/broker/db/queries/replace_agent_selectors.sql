-- The selectors that select an agent now; wakes the agent if there are new ones.
WITH gone AS (
    DELETE FROM agent_selectors
     WHERE agent_id = :agent_id AND NOT selector_id = ANY (:selector_ids::bigint[])
), gained AS (
    INSERT INTO agent_selectors (agent_id, selector_id)
    SELECT :agent_id::uuid, unnest(:selector_ids::bigint[])
        ON CONFLICT DO NOTHING
    RETURNING agent_id
)
SELECT pg_notify('brokkr', concat_ws(' ', 'agent', agent_id)) FROM gained LIMIT 1
