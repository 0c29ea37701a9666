-- For how many seconds the oldest transaction of this database has run: what died after it
-- began cannot be cleaned up.
SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float
  FROM pg_stat_activity
 WHERE datname = current_database()
   AND pid <> pg_backend_pid()
