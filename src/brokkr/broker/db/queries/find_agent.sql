-- One living agent, by id or name.
SELECT agent.*,
       (SELECT count(*) FROM work_queue AS work
         WHERE work.status = 'CLAIMED' AND work.claimed_by = agent.id) AS claimed
  FROM agents AS agent
 WHERE (agent.id = :id OR agent.name = :name)
   AND agent.deleted_at IS NULL
