-- The agents that a selector selects, which is a lane as of this transaction.
--
-- It has members already only if a broker of an earlier version has put them in while it rested.
WITH gone AS (
    DELETE FROM agent_selectors
     WHERE selector_id = :selector_id::bigint
       AND agent_id <> ALL (:agent_ids::uuid[])
)
INSERT INTO agent_selectors (agent_id, selector_id)
SELECT unnest(:agent_ids::uuid[]), :selector_id::bigint
    ON CONFLICT DO NOTHING
