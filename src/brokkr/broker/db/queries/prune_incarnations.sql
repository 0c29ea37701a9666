-- Forget processes of agents that were superseded long ago.
--
-- A process that is known and superseded never becomes the agent's current one, so what is
-- chosen here stays true.
WITH old AS (
    SELECT known.agent_id, known.incarnation
      FROM agent_incarnations AS known
      JOIN agents AS agent ON agent.id = known.agent_id
     WHERE known.first_seen_at < now() - :age::interval
       AND agent.incarnation IS DISTINCT FROM known.incarnation
     ORDER BY known.first_seen_at
     LIMIT :limit
       FOR UPDATE OF known SKIP LOCKED
), deleted AS (
    DELETE FROM agent_incarnations AS known USING old
     WHERE known.agent_id = old.agent_id AND known.incarnation = old.incarnation
    RETURNING known.incarnation
)
SELECT count(*) FROM deleted
