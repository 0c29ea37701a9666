-- Keep what the completion of a handed-off claim is answered, for when it is sent again.
UPDATE work_claims AS claim
   SET answer = to_jsonb(work) - 'crd_spec' - 'claim_id' || jsonb_build_object(
           'generator', (SELECT name FROM generators WHERE generators.id = work.generator_id),
           'target', (SELECT targets FROM selectors WHERE selectors.id = work.selector_id))
  FROM work_queue AS work
 WHERE claim.claim_id = :claim_id
   AND work.id = claim.work_id
RETURNING claim.answer
