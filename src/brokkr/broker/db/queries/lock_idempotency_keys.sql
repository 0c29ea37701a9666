-- Let several keys be kept by one transaction at a time, whatever their order in its request:
-- two that keep the same ones in opposite orders would wait for each other for ever.
SELECT pg_advisory_xact_lock(4, hash)
  FROM (SELECT DISTINCT hashtext(:owner::uuid::text || key) AS hash
          FROM unnest(:keys::text[]) AS key
         ORDER BY hash) AS in_order
