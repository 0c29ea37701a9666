-- Let those of some lanes rest in which nothing is queued.
--
-- The caller has locked them in a statement before this one, and holds the selectors' lock: a
-- Work that was committed until then is seen here, and no other can come.  Whom each selected
-- last stays known, for the Works that are finished.
WITH idle AS (
    SELECT id FROM idle_lanes WHERE id = ANY (:ids::bigint[])
), gone AS (
    DELETE FROM agent_selectors AS member USING idle WHERE member.selector_id = idle.id
    RETURNING member.selector_id, member.agent_id
), last AS (
    SELECT idle.id, coalesce(array_agg(gone.agent_id) FILTER (WHERE gone.agent_id IS NOT NULL),
                             '{}') AS agents
      FROM idle
      LEFT JOIN gone ON gone.selector_id = idle.id
     GROUP BY idle.id
)
UPDATE selectors AS selector
   SET agents = last.agents, generator_id = NULL, idle_since = NULL
  FROM last
 WHERE selector.id = last.id
RETURNING selector.id
