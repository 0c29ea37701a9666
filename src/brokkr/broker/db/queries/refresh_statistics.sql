-- Let the planner look at the tables of the queue; every session then plans anew.
--
-- A table that another replica, or the server itself, is looking at is skipped.
ANALYZE (SKIP_LOCKED) work_queue, work_claims, work_events, work_execution_log
