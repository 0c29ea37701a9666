-- Lock selectors that nobody is about to use.
--
-- Who has found one for a Work (find_selector.sql) holds it until that Work is committed.
SELECT id FROM selectors WHERE id = ANY (:ids::bigint[]) ORDER BY id FOR UPDATE SKIP LOCKED
