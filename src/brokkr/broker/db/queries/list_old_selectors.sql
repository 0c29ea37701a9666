-- The next selectors that are old enough, and whether they look unused.
SELECT slice.id,
       (SELECT true FROM unused_selectors AS unused WHERE unused.id = slice.id) IS NOT NULL
           AS is_unused
  FROM (SELECT id FROM selectors
         WHERE id > :after AND created_at < now() - :age::interval
         ORDER BY id
         LIMIT :limit) AS slice
 ORDER BY slice.id
