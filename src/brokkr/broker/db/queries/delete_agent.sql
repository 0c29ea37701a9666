-- Delete an agent softly: its name is free again, its key opens nothing, its history stays.
WITH deleted AS (
    UPDATE agents SET deleted_at = now() WHERE id = :id AND deleted_at IS NULL RETURNING id
)
DELETE FROM agent_selectors WHERE agent_id = (SELECT id FROM deleted)
