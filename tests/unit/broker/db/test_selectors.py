import hashlib
import json
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from brokkr.broker.db.selectors import canonical_targets, digest_of
from brokkr.wire.bodies import TargetBody

names = st.sampled_from(["a", "b", "c"])
targets = st.builds(
    TargetBody,
    agents=st.lists(names, min_size=1, max_size=3),
    match_labels=st.dictionaries(names, names, max_size=2),
)


@given(st.lists(targets, min_size=1, max_size=4), st.randoms())
def test_order_and_repetition_do_not_make_another_target(
    given_: list[TargetBody], random: Random
) -> None:
    shuffled = [*given_, given_[0]]
    random.shuffle(shuffled)

    assert canonical_targets(shuffled) == canonical_targets(given_)


@given(st.lists(targets, min_size=1, max_size=4))
def test_the_canonical_form_of_the_canonical_form_is_itself(given_: list[TargetBody]) -> None:
    canonical = canonical_targets(given_)

    assert canonical_targets([TargetBody.model_validate(each) for each in canonical]) == canonical


@given(targets, targets)
def test_what_differs_in_meaning_differs_in_form(one: TargetBody, other: TargetBody) -> None:
    same = one.to_target() == other.to_target()

    assert (canonical_targets([one]) == canonical_targets([other])) is same


def test_the_digest_of_a_target_is_the_one_that_is_stored_with_its_lane() -> None:
    targets = [
        TargetBody(agents=["b", "a"]),
        TargetBody.model_validate(
            {
                "match_labels": {"zone": "Zürich"},
                "match_expressions": [{"key": "gpu", "operator": "Exists"}],
            }
        ),
    ]
    written = json.dumps(canonical_targets(targets), sort_keys=True)

    assert digest_of(targets) == hashlib.sha256(written.encode()).digest()
    assert digest_of(targets).hex() == (
        "c35c573bf4f48dd1448c2fab409aacb50e0f1069af800e52f9afc1e153e04a95"
    )
