-- All distinct targets.
SELECT id, targets FROM selectors
