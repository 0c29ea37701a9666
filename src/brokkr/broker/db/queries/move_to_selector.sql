-- Put a Work into another lane; the caller has locked its row.
UPDATE work_queue SET selector_id = :selector_id WHERE id = :work_id
