"""URLs, revisions and folders of git sources."""

from time import process_time

import pytest

from brokkr.work.git_source import leaves_source, problem_with_revision, problem_with_url


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example/team/app.git",
        "https://git.example:8443/team/app",
        "http://127.0.0.1:3080/sample.git",
        "http://[::1]:3080/sample.git",
        "https://git.example",
        "ssh://git@git.example/team/app.git",
        "ssh://git@git.example:2222/~team/app.git",
        "git://git.example/app",
        "git@git.example:team/app.git",
        "git@git.example:app",
        "deploy@git.example:/srv/git/app.git",
        "git.example:team/app.git",
        "git@[::1]:app.git",
        "https://git.example/with%20space/@scope/a:b",
    ],
)
def test_what_git_can_clone_is_accepted(url: str) -> None:
    assert problem_with_url(url) is None


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "must be the URL"),
        ("https://git.example/my app.git", "without spaces"),
        ("https://git.example/a\x07b", "without spaces"),
        ("--upload-pack=touch", "must be the URL"),
        ("file:///srv/git/app.git", "has the scheme 'file'"),
        ("FILE:///srv/git/app.git", "has the scheme 'FILE'"),
        ("ftp://git.example/app.git", "has the scheme 'ftp'"),
        ("docker://registry.example/app", "has the scheme 'docker'"),
        ("HTTPS://git.example/app.git", "write https"),
        ("ext::sh -c id", "without spaces"),
        ("ext::id", "is not the URL"),
        ("/srv/git/app.git", "is not the URL"),
        ("./app", "is not the URL"),
        ("app", "is not the URL"),
        ("git.example/team/app.git", "is not the URL"),
        ("https:/git.example/app.git", "is not the URL"),
        ("https:git.example/app.git", "is not the URL"),
        ("https:///app.git", "names no host"),
        ("https://:8443/app.git", "names no host"),
        ("https://git.example:port/app.git", "optional port"),
        ("ssh://git@git.example:team/app.git", "optional port"),
        ("git@git.example:", "is not the URL"),
    ],
)
def test_what_no_build_could_clone_is_refused(url: str, told: str) -> None:
    assert told in (problem_with_url(url) or "nothing")


@pytest.mark.parametrize(
    "revision",
    [
        *("", "main", "feature/x", "v1.0", "release-1.x", "größe", "dependabot/npm/@scope/x-1.2"),
        *("0123456", "0123456789abcdef0123456789abcdef01234567", "refs/pull/1/head", "a.b", "HEAD"),
    ],
)
def test_what_may_be_a_branch_a_tag_or_a_commit_is_accepted(revision: str) -> None:
    assert problem_with_revision(revision) is None


@pytest.mark.parametrize(
    "revision",
    [
        *("-b", "--orphan", "my branch", " main", "main\n", "main\0", "a..b", "HEAD~1", "HEAD^"),
        *(
            "main@{1}",
            "a:b",
            "ma?n",
            "m*",
            "[m",
            "a\\b",
            "/main",
            "main/",
            "a//b",
            ".a",
            "a.",
            "a.lock",
        ),
    ],
)
def test_what_git_takes_for_no_name_is_refused(revision: str) -> None:
    assert "cannot be the name of a branch" in (problem_with_revision(revision) or "nothing")


@pytest.mark.parametrize("folder", ["", ".", "a", "a/b", "/a", "a/../b", "./a/./b/", "..a", "a/.."])
def test_a_folder_in_the_sources_stays_there(folder: str) -> None:
    assert not leaves_source(folder)


@pytest.mark.parametrize(
    "folder", ["..", "../a", "/..", "a/../..", "a/../../b", "./../a", "a//../.."]
)
def test_a_folder_outside_of_the_sources_leaves_them(folder: str) -> None:
    assert leaves_source(folder)


@pytest.mark.parametrize("text", ["a:" * 100_000, "a@" * 100_000, "https://" + ":" * 200_000])
def test_long_texts_take_no_time(text: str) -> None:
    begin = process_time()
    problem_with_url(text)
    problem_with_revision(text)

    assert process_time() - begin < 0.3
