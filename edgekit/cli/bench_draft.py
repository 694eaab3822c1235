"""How `edgekit bench --draft` prints."""

from __future__ import annotations

from typing import Any

import click

from edgekit.cli.table import print_table
from edgekit.words import counted


def print_drafts(found: dict[str, Any]) -> None:
    """Speed both ways by group, what was accepted, and what blocks cost."""
    rows = []
    for group in found["groups"]:
        first, middle, third = group["speed_up"]["quartiles"]
        rows.append(
            (
                group["group"],
                f"{group['answers']}",
                f"{group['identical']}",
                f"{group['plain_tokens_per_s']['median']:.1f}",
                f"{group['drafted_tokens_per_s']['median']:.1f}",
                f"{middle:.2f} ({first:.2f} to {third:.2f})",
                f"{group['draft']['tokens_per_step']:.2f}",
            )
        )
    headings = ("drafted answers", "number", "identical", "plain tokens/s", "drafted", "speed-up", "tokens a step")
    print_table(headings, rows)
    for group in found["groups"]:
        for name, source in group["draft"]["sources"].items():
            chances = " ".join("–" if each is None else f"{each:.0%}" for each in source["acceptance_by_position"])
            click.echo(f"{group['group']}, {name}: accepted by position {chances}")
        if group["draft"]["off"]:
            click.echo(f"{group['group']}: drafting was off at the end: {group['draft']['off']}")
    blocks = ", ".join(
        f"{row['positions']}: {row['step_s']['median'] * 1e3:.1f} ms ({row['ratio']:.2f})" for row in found["blocks"]
    )
    click.echo(f"a step of so many positions (and over one of 1): {blocks}")
    different = [answer for answer in found["answers"] if not answer["agreement"]["identical"]]
    if different:
        click.echo(
            f"{len(different)} of {counted(len(found['answers']), 'answers')} differ from plain decoding's, each from "
            "a token on that the engine's rounding decides: kernels for one token and for several round differently"
        )
