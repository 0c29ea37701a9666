-- Who is stored as being selected by which whole target.
SELECT member.agent_id, member.selector_id
  FROM agent_selectors AS member
  JOIN selectors AS selector ON selector.id = member.selector_id
 WHERE member.agent_id = ANY (:agent_ids::uuid[])
   AND member.selector_id = ANY (:selector_ids?::bigint[])
   AND selector.excluded = '{}'
   AND selector.agents IS NULL
