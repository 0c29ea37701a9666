-- Take the lock of migrations if it is free; it belongs to the connection.
SELECT pg_try_advisory_lock(4, 0)
