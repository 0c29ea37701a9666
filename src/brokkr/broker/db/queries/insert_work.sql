-- Queue a Work, and tell the brokers that its lane has one more.
--
-- The notification leaves when the transaction commits, so whoever is woken finds the row.
-- It names the Work because PostgreSQL drops equal notifications of one transaction.
WITH submitted AS (
    INSERT INTO work_queue
        (id, work_type, crd_spec, selector_id, priority, max_retries, claim_timeout_seconds)
    VALUES
        (:id, :work_type, :crd_spec, :selector_id, :priority, :max_retries,
         :claim_timeout_seconds)
    RETURNING id, selector_id, work_type
)
SELECT pg_notify('brokkr', concat_ws(' ', 'work', selector_id, work_type, id)) FROM submitted
