-- Register an agent; nothing is returned if a living one has the name.
INSERT INTO agents (id, name, cluster_name, labels, annotations)
VALUES (:id, :name, :cluster_name, :labels, :annotations)
    ON CONFLICT (name) WHERE deleted_at IS NULL DO NOTHING
RETURNING id
