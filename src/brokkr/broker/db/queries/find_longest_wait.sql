-- For how many seconds the Work has waited that could be claimed for the longest time.
SELECT greatest(0, extract(epoch FROM now() - min(pending_since)))::float
  FROM work_queue
 WHERE status = 'PENDING' AND is_due
