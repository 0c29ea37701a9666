-- Store a generator; nothing is returned if a living one has the name.
INSERT INTO generators (id, name, max_pending, max_submissions_per_minute)
VALUES (:id, :name, :max_pending, :max_submissions_per_minute)
    ON CONFLICT (name) WHERE deleted_at IS NULL DO NOTHING
RETURNING id
