-- Delete a generator softly: its name is free again, its Work goes on, its history stays.
UPDATE generators SET deleted_at = now() WHERE id = :id
