-- All distinct targets, whole ones; who is in the others follows from these.
SELECT id, targets FROM selectors WHERE excluded = '{}'
