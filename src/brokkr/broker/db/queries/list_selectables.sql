-- As much of every living agent as a target looks at.
SELECT id, name, labels, annotations FROM agents WHERE deleted_at IS NULL
