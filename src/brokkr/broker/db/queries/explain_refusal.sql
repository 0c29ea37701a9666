-- Why a claim, or a report on one, was not taken: asked only after it was refused.
--
-- `answer` is what an earlier completion with this claim was told; `is_visible` says
-- whether this agent may know of the Work at all.
SELECT (SELECT status FROM works WHERE id = :work_id) AS state,
       (SELECT answer FROM work_claims
         WHERE claim_id = :claim_id AND work_id = :work_id AND agent_id = :agent_id) AS answer,
       EXISTS (SELECT FROM work_targets WHERE work_id = :work_id AND agent_id = :agent_id)
       OR EXISTS (SELECT FROM work_claims WHERE work_id = :work_id AND agent_id = :agent_id)
           AS is_visible,
       EXISTS (SELECT FROM agents WHERE id = :agent_id AND drained_at IS NOT NULL) AS is_drained,
       (SELECT jsonb_build_object(
                   'work_type', work.work_type,
                   'reason', me.capabilities -> 'unavailable' -> work.work_type)
          FROM work_queue AS work
          JOIN agents AS me ON me.id = :agent_id
         WHERE work.id = :work_id
           AND work.status = 'PENDING'
           AND me.capabilities -> 'unavailable' ? work.work_type) AS unavailable
