"""Targets and agents of all kinds, for Hypothesis."""

from hypothesis import strategies as st

from brokkr.work.selectors import MatchExpression, Operator, Selectable, Target

# Few enough that agents and targets meet.
KEYS, VALUES, NAMES = st.sampled_from("abc"), st.sampled_from(["", "1", "2"]), ["x", "y", "z"]
PAIRS = st.dictionaries(KEYS, VALUES, max_size=3)
EXPRESSIONS = st.builds(
    MatchExpression, key=KEYS, operator=st.sampled_from(Operator), values=st.frozensets(VALUES)
)
TARGETS = st.builds(
    Target,
    agents=st.frozensets(st.sampled_from(NAMES), max_size=2),
    match_labels=PAIRS,
    match_expressions=st.lists(EXPRESSIONS, max_size=2).map(tuple),
    match_annotations=PAIRS,
)
AGENTS = st.builds(
    Selectable, id=st.uuids(), name=st.sampled_from(NAMES), labels=PAIRS, annotations=PAIRS
)
