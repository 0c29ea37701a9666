-- Why an agent cannot work in its cluster, as it said last; nothing if it can.
SELECT capabilities -> 'unable' ->> 'cause' FROM agents WHERE id = :agent_id
