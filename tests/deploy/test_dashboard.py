"""The dashboard can be imported anywhere, asks only for what the program exports, and with the alerts leaves nothing out."""

import json
import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest

from tests.deploy.exported import exported
from tests.deploy.promql import asked, faults
from tests.deploy.test_alerts import rules
from tests.store.stores import ROOT

FILE = ROOT / "deploy" / "grafana" / "sweeper.json"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panels(text: str) -> list[dict[str, Any]]:
    """The panels that draw something."""
    return [panel for panel in json.loads(text)["panels"] if panel["type"] != "row"]


def expressions(text: str) -> list[str]:
    """What all panels ask for."""
    return [target["expr"] for panel in panels(text) for target in panel["targets"]]


def all_faults(text: str) -> list[str]:
    """Everything that is wrong with a dashboard's text."""
    found = json.loads(text)
    return [*_of_import(found), *(f"{p['title']}: {fault}" for p in panels(text) for fault in _of_panel(p))]


def _of_import(found: dict[str, Any]) -> Iterator[str]:
    if found.get("uid") or found.get("id"):
        yield "it has a uid of its own, and replaces whatever has it already"
    names = {variable["name"] for variable in found["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(found["panels"])))
    yield from (f"variable {name} is not there" for name in used - names)
    if len({panel["id"] for panel in found["panels"]}) < len(found["panels"]):
        yield "two panels have one id"
    for one, other in combinations(found["panels"], 2):
        if _overlap(one["gridPos"], other["gridPos"]):
            yield f"{one['title']} lies on {other['title']}"


def _of_panel(panel: dict[str, Any]) -> Iterator[str]:
    if panel["datasource"] != SOURCE:
        yield "its data source cannot be chosen"
    for target in panel["targets"]:
        if target["datasource"] != SOURCE:
            yield "a data source cannot be chosen"
        yield from faults(target["expr"], exported())
        for series, matchers in asked(target["expr"]).series:
            if "store" not in matchers:
                yield f"{series} of all stores at once"
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
            if label not in asked(target["expr"]).grouped:
                yield f"its legend says {label}"


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[at] < other[at] + other[size] and other[at] < one[at] + one[size] for at, size in (("x", "w"), ("y", "h"))
    )


def unseen(text: str, alerts: list[dict[str, Any]]) -> set[str]:
    """The series that are neither drawn nor alerted."""
    seen = {series for asks in expressions(text) for series, _ in asked(asks).series}
    seen |= {series for rule in alerts for series, _ in asked(rule["expr"]).series}
    return set(exported()) - seen


def test_dashboard_holds() -> None:
    """Every panel asks for what exists, of the chosen store and data source, and none hides another."""
    assert all_faults(FILE.read_text()) == []


def test_nothing_is_left_out() -> None:
    """Every exported series is drawn or alerted."""
    assert unseen(FILE.read_text(), rules()) == set()


@pytest.mark.parametrize(
    ("there", "instead", "fault"),
    [
        ("sweeper_held_conversations", "sweeper_held", "sweeper_held is not exported"),
        ("max by (store, guard)", "max by (store, reason)", "cannot be grouped by reason"),
        ("{{guard}}", "{{rule}}", "its legend says rule"),
        ('sweeper_drain_seconds{store=~\\"$store\\"}', "sweeper_drain_seconds", "of all stores at once"),
        ('"uid": "${datasource}"', '"uid": "P1809F7CD0C75ACF3"', "data source cannot be chosen"),
        ('"name": "store"', '"name": "shop"', "variable store is not there"),
        ('"title": "sweeper"', '"title": "sweeper", "uid": "sweeper"', "a uid of its own"),
        ('"x": 8', '"x": 7', "lies on"),
    ],
)
def test_broken_dashboards_are_found(there: str, instead: str, fault: str) -> None:
    """A copy with one thing wrong has that fault."""
    text = FILE.read_text()
    assert there in text
    assert any(fault in told for told in all_faults(text.replace(there, instead)))


def test_what_is_left_out_is_found() -> None:
    """Without its panel and its alert a series is missed."""
    text = FILE.read_text().replace("sweeper_objects_pending", "sweeper_up")
    alerts = [rule for rule in rules() if rule["alert"] != "SweeperObjectsPending"]
    assert unseen(text, alerts) == {"sweeper_objects_pending"}
