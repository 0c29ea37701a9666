-- Where a pending Work stands: its lane, and how many go first there; and why its last holder
-- gave it back, if that could not work.
--
-- What goes first is two ranges of the lane's index, what is more urgent and what came
-- earlier; neither is read further than the limit.
SELECT work.selector_id, work.priority, work.seq, work.is_due, work.not_before, work.round,
       work.start_deadline,
       (SELECT claim.message
          FROM work_claims AS claim
         WHERE claim.work_id = work.id
           AND claim.round = work.round
           AND claim.ended_as = 'released'
           AND starts_with(claim.message, :prefix)) AS unable,
       selector.targets, selector.excluded, now() AS now,
       (SELECT count(*)
          FROM ((SELECT FROM work_queue AS urgent
                  WHERE urgent.selector_id = work.selector_id
                    AND urgent.status = 'PENDING' AND urgent.is_due
                    AND urgent.priority > work.priority
                  LIMIT :limit)
                UNION ALL
                (SELECT FROM work_queue AS earlier
                  WHERE earlier.selector_id = work.selector_id
                    AND earlier.status = 'PENDING' AND earlier.is_due
                    AND earlier.priority = work.priority
                    AND earlier.seq < work.seq
                  LIMIT :limit)
                LIMIT :limit) AS first) AS ahead
  FROM work_queue AS work
  JOIN selectors AS selector ON selector.id = work.selector_id
 WHERE work.id = :work_id
   AND work.status = 'PENDING'
