-- How many attempts of a Work the cluster or a node was to blame for, and were repeated: the
-- budget for them is one for the whole Work, so the next holder has to know.
--
-- A constant default: no row is written, and the table is locked for a moment only.
ALTER TABLE work_queue ADD COLUMN infrastructure_retries int NOT NULL DEFAULT 0;
