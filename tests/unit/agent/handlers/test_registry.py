from brokkr.agent.handlers.build.manifests import BuildDefaults
from brokkr.agent.handlers.registry import handlers
from brokkr.work.template import ALLOWED_KINDS


def test_every_work_type_that_may_be_submitted_has_a_handler() -> None:
    assert handlers(BuildDefaults()).keys() == ALLOWED_KINDS.keys()


def test_what_an_attempt_is_executed_by_is_of_a_kind_that_its_type_allows() -> None:
    for work_type, handler in handlers(BuildDefaults()).items():
        assert handler.executor in {kind for _, kind in ALLOWED_KINDS[work_type]}
