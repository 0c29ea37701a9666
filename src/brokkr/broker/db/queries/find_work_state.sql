-- In which state a Work is, wherever it is.
SELECT status FROM works WHERE id = :work_id
