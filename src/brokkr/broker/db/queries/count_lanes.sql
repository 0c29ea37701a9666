-- How many lanes there are, and how many of them became one for a generator; counted no further
-- than matters.
SELECT (SELECT count(*)
          FROM (SELECT FROM selectors
                 WHERE agents IS NULL AND generator_id = :generator_id
                 LIMIT :enough) AS one) AS of_generator,
       (SELECT count(*)
          FROM (SELECT FROM selectors WHERE agents IS NULL LIMIT :enough) AS each) AS of_all
