-- Which of these agents are in these lanes; who is drained or deleted is in none, and who
-- has declared a type unavailable in none of that type.
SELECT member.agent_id, member.selector_id, selector.work_type
  FROM agent_selectors AS member
  JOIN agents AS agent ON agent.id = member.agent_id
  JOIN selectors AS selector ON selector.id = member.selector_id
 WHERE member.selector_id = ANY (:selector_ids::bigint[])
   AND member.agent_id = ANY (:agent_ids::uuid[])
   AND agent.drained_at IS NULL
   AND agent.deleted_at IS NULL
   AND NOT coalesce(agent.capabilities -> 'unavailable', '{}') ? selector.work_type
