-- How many rows of each table are live, and how many are dead and wait to be cleaned up.
SELECT relname AS name, n_live_tup AS live, n_dead_tup AS dead
  FROM pg_stat_user_tables
 WHERE relid IN (SELECT unnest(:tables::text[])::regclass)
