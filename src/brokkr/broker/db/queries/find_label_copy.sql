-- Whether all labels of generators' Works have been copied.
SELECT is_done FROM label_copy
