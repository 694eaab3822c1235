"""The page of a plan: it shows what the plan tells, is well-formed and needs nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgekit.cli.plan_text import print_comparison
from edgekit.plan.drafts import Drafts
from edgekit.plan.limits import largest_context
from edgekit.plan.model_sizes import ModelSizes, model_sizes
from edgekit.plan.options import PlanOptions
from edgekit.plan.plan import Plan, make_plan
from edgekit.plan.suggestions import run_suggestions
from edgekit.plan.words import gigabytes, size
from edgekit.report.page import html_of
from edgekit.report.plan_page import plan_page
from tests.plan.conftest import BOARD, CARD, OLD, config
from tests.report.browser import browser, layout
from tests.report.reading import facts, parsed, section, table, text, tiles


@pytest.fixture(scope="module")
def large() -> ModelSizes:
    return model_sizes(config("llama-2-7b"))


def plans_of(sizes: ModelSizes) -> list[Plan]:
    return [make_plan("a model", sizes, device, PlanOptions("fp16", 4096)) for device in (BOARD, CARD, OLD)]


def test_one_plan(large: ModelSizes) -> None:
    plan = plans_of(large)[0]
    root = parsed(html_of(plan_page([plan])))
    assert "a model on Board" in text(root)
    assert tiles(root)["Running"].startswith("does not fit")
    shown = table(section(root, "memory"), "What each rests on")
    assert {name: row[0] for name, row in shown.items()} == {i.name: size(i.bytes) for i in plan.memory.items}
    assert facts(section(root, "build"))["in the device's memory"] == "does not fit"
    assert facts(section(root, "build"))["time"] == "not measured for this backend"
    found = largest_context(plan)
    assert facts(section(root, "limits"))["largest context"] == (f"{found:,} tokens" if found else "none fits")
    changes = table(section(root, "limits"), "With a change")
    assert {name: row[0] for name, row in changes.items()} == {
        each.change: each.plan.run_verdict for each in run_suggestions(plan)
    }
    assert "no engine of edgekit has been timed" in text(section(root, "notes"))
    assert "16" in table(section(root, "tokens"), "Where 80% of the proposed tokens are accepted")


def test_several_side_by_side(large: ModelSizes) -> None:
    plans = plans_of(large)
    root = parsed(html_of(plan_page(plans)))
    shown = table(section(root, "comparison"), "Devices")
    assert list(shown) == ["Board", "Card", "Old board"]
    for plan, row in zip(plans, shown.values(), strict=True):
        memory = plan.memory
        assert row[:4] == [
            plan.machine.mode.name,
            plan.run_verdict,
            gigabytes(memory.total.value),
            gigabytes(memory.available),
        ]
    for name in ("board", "card", "old"):
        assert "Several tokens at once" in text(section(root, name))


def test_the_terminal_compares_the_same(large: ModelSizes, capsys: pytest.CaptureFixture[str]) -> None:
    options = PlanOptions("fp16", 4096, drafts=Drafts((0.7,) * 4, None, "as given"))
    plans = [make_plan("a model", large, device, options) for device in (BOARD, CARD)]
    shown = table(section(parsed(html_of(plan_page(plans))), "comparison"), "Devices")
    print_comparison(plans)
    _, head, *lines = capsys.readouterr().out.splitlines()
    assert re.split(r" {2,}", head)[-2:] == ["drafted tokens/s", "speed-up"]
    for plan, line, row in zip(plans, lines, shown.values(), strict=True):
        assert re.split(r" {2,}", line) == [plan.machine.device.name, *row]


def test_drafts_that_were_asked_for(large: ModelSizes) -> None:
    options = PlanOptions("fp16", 4096, drafts=Drafts((0.7,) * 4, None, "as given"))
    plans = [make_plan("a model", large, device, options) for device in (BOARD, CARD)]
    shown = facts(section(parsed(html_of(plan_page(plans[:1]))), "tokens"))
    # 1 + 0.7 + 0.49 + 0.343 + 0.2401
    assert "2.77 tokens a step (acceptance as given)" in shown["drafting 4 tokens"]
    assert shown["fastest"].startswith("4 tokens, ")
    compared = table(section(parsed(html_of(plan_page(plans))), "comparison"), "Devices")
    assert all(row[-1].endswith("with 4") for row in compared.values())
    assert "drafting 4 tokens" not in facts(section(parsed(html_of(plan_page(plans_of(large)[:1]))), "tokens"))


@pytest.mark.parametrize("count", [1, 3])
def test_it_needs_nothing_else(large: ModelSizes, count: int) -> None:
    html = html_of(plan_page(plans_of(large)[:count]))
    root = parsed(html)
    assert [e.get("href") for e in root.iter() if e.get("href") and not str(e.get("href")).startswith("#")] == []
    assert not [e for e in root.iter() if e.get("src")]
    assert "url(" not in html
    assert not list(root.iter("script"))


def test_names_are_escaped() -> None:
    plan = make_plan("<script>x</script>", model_sizes(config("smollm2-135m")), BOARD, PlanOptions("fp16", 64))
    root = parsed(html_of(plan_page([plan])))
    assert not list(root.iter("script"))
    assert "<script>x</script> on Board" in text(root)


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_sticks_out(large: ModelSizes, width: int, tmp_path: Path) -> None:
    browser()
    found = layout(html_of(plan_page(plans_of(large))), tmp_path, width)
    assert found["out"] == []
    assert found["scroll"] <= width
