-- Who is in the lanes of what some agents have tried: the others of the whole target, if any
-- of them can work (not drained, heard of lately, and able to execute the type now); else all
-- of the whole target.
--
-- Asked for all such lanes when an agent changes, and every so often, because being heard of
-- and what it can execute change by themselves: under the selectors' lock.  And for one lane when it is made: nobody
-- else sees it yet, so the shared lock will do.  Returns the agents for whom something has
-- changed.
WITH candidate AS (
    SELECT narrow.id AS selector_id, whole_member.agent_id,
           whole_member.agent_id <> ALL (narrow.excluded)
               AND agent.drained_at IS NULL
               AND agent.last_seen_at BETWEEN now() - interval '2 minutes'
                                          AND now() + interval '2 minutes'
               AND NOT coalesce(agent.capabilities -> 'unavailable', '{}') ? narrow.work_type
               AS is_preferred
      FROM selectors AS narrow
      JOIN selectors AS whole
        ON whole.digest = narrow.digest
       AND whole.work_type = narrow.work_type
       AND whole.excluded = '{}'
      JOIN agent_selectors AS whole_member ON whole_member.selector_id = whole.id
      JOIN agents AS agent ON agent.id = whole_member.agent_id
     WHERE narrow.excluded <> '{}'
       AND narrow.agents IS NULL
       AND (:selector_id::bigint IS NULL OR narrow.id = :selector_id::bigint)
), preferred AS (
    SELECT selector_id FROM candidate GROUP BY selector_id HAVING bool_or(is_preferred)
), member AS (
    SELECT selector_id, agent_id
      FROM candidate
     WHERE is_preferred
        OR selector_id NOT IN (SELECT selector_id FROM preferred)
), gone AS (
    DELETE FROM agent_selectors AS stored
     USING selectors AS narrow
     WHERE narrow.id = stored.selector_id
       AND narrow.excluded <> '{}'
       AND narrow.agents IS NULL
       AND (:selector_id::bigint IS NULL OR narrow.id = :selector_id::bigint)
       AND NOT EXISTS (SELECT FROM member
                        WHERE member.selector_id = stored.selector_id
                          AND member.agent_id = stored.agent_id)
    RETURNING stored.agent_id
), gained AS (
    INSERT INTO agent_selectors (agent_id, selector_id)
    SELECT agent_id, selector_id FROM member
        ON CONFLICT DO NOTHING
    RETURNING agent_id
)
SELECT agent_id FROM gone UNION SELECT agent_id FROM gained
