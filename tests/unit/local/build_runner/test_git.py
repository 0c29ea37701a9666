import pytest

from brokkr.local.build_runner.git import ENVIRONMENT, classify


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("fatal: Authentication failed for 'https://h/x.git/'", "GitAuthInvalidUserOrPass"),
        ("fatal: Could not read from remote repository.", "GitAuthInvalidKey"),
        (
            "fatal: could not read Username for 'https://h': terminal prompts disabled",
            "GitRemoteRepositoryPrivate",
        ),
        ("remote: Repository not found.\nfatal: repository", "GitRemoteRepositoryNotFound"),
        (
            (
                "warning: Could not find remote branch x to clone.\n"
                "fatal: Remote branch x not found in upstream origin"
            ),
            "GitRevisionNotFound",
        ),
        ("fatal: repository 'http://h/nope.git/' not found", "GitError"),
        ("error: pathspec 'abcdef1' did not match any file(s) known to git", "GitError"),
        ("Segmentation fault", "GitError"),
    ],
)
def test_gits_complaints_get_shipwrights_reasons(said: str, reason: str) -> None:
    assert classify(said, 128)[0] == reason


def test_an_unknown_complaint_is_quoted_as_shipwright_quotes_it() -> None:
    said = "Cloning into 'x'...\nfatal: repository 'http://h/nope.git/' not found\n"

    _, message = classify(said, 128)

    assert message == "fatal:  repository 'http://h/nope.git/' not found (exit code 128)"


def test_a_long_complaint_is_cut() -> None:
    _, message = classify(f"fatal: {'x' * 1000}", 128)

    assert len(message) == 300


def test_the_keys_of_whoever_runs_this_are_not_used_for_ssh() -> None:
    """ssh looks for them in the home of the user database, whatever HOME says."""
    options = ENVIRONMENT["GIT_SSH_COMMAND"].split(" -o ")

    assert options[0] == "ssh -F none"
    assert {"IdentityFile=none", "IdentityAgent=none", "IdentitiesOnly=yes"} <= set(options)
