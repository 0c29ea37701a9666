-- One living generator, by id or name, locked until what is done to it is done.
--
-- The lock does not keep out those who only refer to the row: its Work goes on.
SELECT id, max_pending, max_submissions_per_minute
  FROM generators
 WHERE (id = :id OR name = :name)
   AND deleted_at IS NULL
   FOR NO KEY UPDATE
