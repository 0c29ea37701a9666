-- How much is queued, by status.
SELECT status, count(*) FROM work_queue GROUP BY status
