-- The ids of all distinct targets that are lanes, whole ones.
SELECT id FROM selectors WHERE excluded = '{}' AND agents IS NULL
