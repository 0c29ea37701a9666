-- Note that a process of an agent is alive, and find out whether it is the newest.
--
-- A process that was never heard of becomes the agent; one that is known and is not the
-- agent any more was superseded.  Of two new ones the last to get the row's lock wins.  What
-- an agent says of itself stands until it says something else, or until a new process, which
-- may be of an older version, says nothing.  What it said before is read under the lock, so
-- of two beats the second sees the first.
WITH introduced AS (
    INSERT INTO agent_incarnations (agent_id, incarnation)
    VALUES (:agent_id, :incarnation)
        ON CONFLICT DO NOTHING
    RETURNING incarnation
)
UPDATE agents AS agent
   SET last_seen_at = now(),
       incarnation = coalesce((SELECT incarnation FROM introduced), agent.incarnation),
       capacity = coalesce(
           :capacity::jsonb,
           CASE WHEN NOT EXISTS (SELECT FROM introduced) THEN agent.capacity END
       ),
       capabilities = coalesce(
           :capabilities::jsonb,
           CASE WHEN NOT EXISTS (SELECT FROM introduced) THEN agent.capabilities END
       )
  FROM (SELECT id, capabilities
          FROM agents
         WHERE id = :agent_id
           FOR NO KEY UPDATE) AS before
 WHERE agent.id = before.id
   AND agent.deleted_at IS NULL
RETURNING agent.incarnation = :incarnation AS is_current,
          EXISTS (SELECT FROM introduced) AS is_first,
          before.capabilities -> 'unavailable' AS unavailable_before,
          agent.capabilities -> 'unavailable' AS unavailable
