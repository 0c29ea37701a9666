-- The selectors of whole targets that select an agent now.
WITH gone AS (
    DELETE FROM agent_selectors AS stored
     USING selectors AS selector
     WHERE stored.agent_id = :agent_id
       AND selector.id = stored.selector_id
       AND selector.excluded = '{}'
       AND NOT stored.selector_id = ANY (:selector_ids::bigint[])
)
INSERT INTO agent_selectors (agent_id, selector_id)
SELECT :agent_id::uuid, unnest(:selector_ids::bigint[])
    ON CONFLICT DO NOTHING
