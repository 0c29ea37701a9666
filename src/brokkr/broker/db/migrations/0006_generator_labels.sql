-- The labels of a generator's Works, by the generator: who looks for its own Work by a label
-- reads nothing of others', however many of them have that label, and learns nothing from how
-- long it takes.
CREATE TABLE generator_labels (
    generator_id uuid NOT NULL,
    label text NOT NULL,
    work_id uuid NOT NULL,
    PRIMARY KEY (generator_id, label, work_id)
);

-- A broker of this version writes both tables itself.  For one of an earlier version, which
-- does not say `is_copied`, the trigger does.
ALTER TABLE work_labels ADD COLUMN is_copied boolean NOT NULL DEFAULT false;
CREATE FUNCTION copy_label() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO generator_labels (generator_id, label, work_id)
    SELECT generator_id, NEW.label, NEW.work_id
      FROM work_queue
     WHERE id = NEW.work_id AND generator_id IS NOT NULL
        ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER copy_label AFTER INSERT ON work_labels
    FOR EACH ROW WHEN (NOT NEW.is_copied) EXECUTE FUNCTION copy_label();

-- How far the labels from before this migration have been copied, in the order of their key.
CREATE TABLE label_copy (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    label text NOT NULL DEFAULT '',
    work_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    is_done boolean NOT NULL DEFAULT false
);
INSERT INTO label_copy (is_done) SELECT NOT EXISTS (SELECT FROM work_labels);
