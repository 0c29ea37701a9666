-- Keep what the holder of a claim last said.
UPDATE work_queue
   SET progress = jsonb_set(:progress::jsonb, '{reported_at}', to_jsonb(now()))
 WHERE id = :work_id
   AND claim_id = :claim_id
   AND claimed_by = :agent_id
   AND status = 'CLAIMED'
RETURNING id
