-- Offer an agent nothing, or everything again; the first drain's time is kept.
UPDATE agents
   SET drained_at = CASE WHEN :is_drained::boolean THEN coalesce(drained_at, now()) END
 WHERE id = :id
