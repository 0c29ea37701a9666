-- The selector of a target that was seen before.
SELECT id FROM selectors WHERE digest = :digest
