"""Chat templates are run within bounds."""

from __future__ import annotations

import subprocess
import sys
import time
from textwrap import dedent

import pytest

from vlm_adapters.hf.template import TooLongError, problem_of, stopped_after


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ 2 ** 3 }}", "computes a power"),
        ("{{ n**n }}", "computes a power"),
        ("{{ 'a' * 10 * 10 }}", "multiplies more than once"),
        ("{{ 'a' * 9999999 }}", "contains '9999999'"),
        ("{{ 'a' * 1_000_000_0 }}", "contains '1_000_000_0'"),
        ("{{ 'a' * 0xffffffff }}", "contains '0xffffffff'"),
        ("{{ 1e30 }}", "contains '1e30'"),
        ("{{ '%9999999d' % 5 }}", "contains"),
        ("{{ '{:>99999999}'.format(5) }}", "contains"),
        ("x" * 1_000_001, "has 1,000,001 characters"),
    ],
)
def test_a_template_that_could_make_something_huge_is_refused(template: str, problem: str) -> None:
    assert (problem_of(template) or "").startswith(problem)


@pytest.mark.parametrize(
    "template",
    [
        "",
        "{% for m in messages %}{{ m['content'] }}{% endfor %}",
        "{% if loop.index0 % 2 == 0 %}{{ loop.index0 * 2 }}{% endif %}{{ messages[::-1] }}",
        "{% generation %}{{ strftime_now('%d %b %Y') }}{% endgeneration %}",
        "a ** b, 99999999 and '%9999999d' outside of the code",
        "{{ broken",
    ],
)
def test_an_ordinary_template_is_run(template: str) -> None:
    assert problem_of(template) is None


def test_code_that_runs_too_long_is_stopped() -> None:
    def never_ends() -> None:
        with stopped_after(0.2):
            while True:
                pass

    start = time.monotonic()
    with pytest.raises(TooLongError):
        never_ends()
    assert time.monotonic() - start < 5


def test_a_text_that_doubles_is_stopped_before_it_takes_all_memory() -> None:
    lengths = []

    def doubles() -> None:
        text = "ab"
        with stopped_after(60):
            while True:
                text = f"{text}{text}"
                lengths.append(len(text))

    with pytest.raises(TooLongError):
        doubles()
    assert max(lengths) < 1 << 31


def test_nothing_is_left_behind_for_later_code() -> None:
    with stopped_after(0.1):
        pass
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pass


def test_an_error_inside_is_kept() -> None:
    with pytest.raises(KeyError), stopped_after(10):
        raise KeyError


def test_a_profiler_works_afterwards() -> None:
    code = """
    import cProfile
    from vlm_adapters.hf.template import stopped_after
    with stopped_after(10):
        pass
    profile = cProfile.Profile()
    profile.runcall(len, [])
    profile.runcall(lambda: len([]))
    """
    subprocess.run([sys.executable, "-c", dedent(code)], check=True, timeout=120)
