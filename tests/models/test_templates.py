"""Templates of strangers are rendered within limits."""

from __future__ import annotations

import signal
import time

import pytest

from gentax.core import UsageError
from gentax.models.templates import SandboxedTemplate, TemplateRenderError


def test_a_template_can_be_rendered_repeatedly():
    with SandboxedTemplate(
        "{{ a }}{% generation %}!{% endgeneration %} {{ b|tojson }} {{ strftime_now('%Y') }}", "t"
    ) as one:
        for n in range(3):
            assert one.render({"a": n, "b": {"é": None}}) == f'{n}! {{"é": null}} 2024'
        with pytest.raises(TemplateRenderError, match="no system"):
            SandboxedTemplate("{{ raise_exception('no system') }}", "t").render({})
        one.close()
        assert one.render({"a": 1, "b": 2}) == "1! 2 2024"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "more than 2 seconds"),
        ("{{ 'a' * 10 ** 10 }}", "too much memory"),
        ("{{ 'a'|center(10 ** 10) }}", "too much memory"),
        ("{{ 'abc' * 1000000 }}", "writes 3,000,000 characters"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "too deeply"),
        ("{{ cycler.__init__.__globals__.os.system('true') }}", "unsafe"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{% set x = 9 %}{{ x ** (x ** (x ** x)) }}", "too long|2 seconds"),
    ],
)
def test_endless_large_and_prying_templates_are_stopped(source, said):
    began = time.monotonic()
    with pytest.raises((UsageError, TemplateRenderError), match=said) as fault, SandboxedTemplate(source, "t") as one:
        one.render({})
    assert "\n" not in str(fault.value)
    assert time.monotonic() - began < 40  # some 5 seconds of computing at most, on a machine that does other things too


def test_ctrl_c_does_not_reach_the_template_process():
    """A terminal sends it to the whole group; the step in flight is finished, with its prompts."""
    with SandboxedTemplate("{{ text }}", "the template") as template:
        assert template.render({"text": "before"}) == "before"
        template._process.send_signal(signal.SIGINT)
        assert template.render({"text": "after"}) == "after"


def test_the_process_ends_with_the_template():
    one = SandboxedTemplate("{{ a }}", "t")
    process = one._process
    assert process.poll() is None
    one.close()
    assert process.poll() is not None
