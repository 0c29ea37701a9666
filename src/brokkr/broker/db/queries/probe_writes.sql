-- Whether this server takes writes.  The rows do not fit into the little memory that the caller
-- has set and go through a file of a megabyte, which a full disk refuses.  The file is gone with
-- the statement, and neither a table nor the journal is written.
WITH filler AS MATERIALIZED (
    SELECT repeat(md5(number::text), 32) AS text FROM generate_series(1, 1000) AS number
)
SELECT current_setting('transaction_read_only') = 'off' AND max(length(text)) > 0 FROM filler
