"""`croissant.json` is valid, its records can be read through it, and it says of the data what holds."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from sweeper.manifest import croissant, lifecycle, parquet
from sweeper.manifest.description import Description
from sweeper.policy.schema import Policy
from tests.manifest import made
from tests.manifest.made import LATER
from tests.manifest.test_eligibility import trained
from tests.store.stores import Store

pytestmark = [
    pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated"),
    pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame"),
]
"""mlcroissant calls what its libraries will drop."""

RAI = ("dataCollection", "personalSensitiveInformation", "dataUseCases", "dataLimitations", "dataBiases")


@pytest.fixture
def validated(caplog: pytest.LogCaptureFixture) -> Any:
    """Loads a directory's file with mlcroissant, which must have nothing to say about it."""
    import mlcroissant

    def validate(folder: Path) -> Any:
        dataset = mlcroissant.Dataset(jsonld=str(folder / croissant.NAME))
        assert not dataset.metadata.ctx.issues.errors
        assert not dataset.metadata.ctx.issues.warnings
        assert not [record.getMessage() for record in caplog.records if record.levelname != "INFO"]
        return dataset

    return validate


def read(dataset: Any, name: str) -> list[dict[str, Any]]:
    """The rows of a record set, by column, as text where they are text."""
    return [
        {
            key.removeprefix(f"{name}/"): value.decode() if isinstance(value, bytes) else value
            for key, value in row.items()
        }
        for row in dataset.records(name)
    ]


def said(folder: Path) -> dict[str, Any]:
    """What the file says."""
    found: dict[str, Any] = json.loads((folder / croissant.NAME).read_text())
    return found


@pytest.mark.parametrize("with_text", [False, True])
@pytest.mark.parametrize(("per_group", "parts"), [(65_536, 1), (2, 6)])
def test_valid_and_readable(
    store: Store,
    policy: Policy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    validated: Any,
    per_group: int,
    parts: int,
    *,
    with_text: bool,
) -> None:
    """Of one part or of several it is valid, and its record set gives the rows of all of them, in order."""
    for name in ("ROWS_PER_GROUP", "ROWS_PER_GROUP_WITH_TEXT"):
        monkeypatch.setattr(parquet, name, per_group)
    monkeypatch.setattr(parquet, "GROUPS_PER_PART", 2)
    store.load(made.world())
    made.freeze(store, made.forever(policy), tmp_path / "m", with_text=with_text)
    assert len(list((tmp_path / "m").glob("part-*"))) == parts
    dataset = validated(tmp_path / "m")
    assert [record_set.uuid for record_set in dataset.metadata.record_sets] == ["messages", "revocations"]
    assert read(dataset, "messages") == made.rows(tmp_path / "m")
    assert read(dataset, "revocations") == []


def test_no_rows(store: Store, policy: Policy, tmp_path: Path, validated: Any) -> None:
    """An empty manifest is valid and gives no records."""
    made.freeze(store, policy, tmp_path / "m")
    dataset = validated(tmp_path / "m")
    assert (read(dataset, "messages"), read(dataset, "revocations")) == ([], [])


def test_revocations_are_read_through_it(store: Store, policy: Policy, tmp_path: Path, validated: Any) -> None:
    """What is revoked later is read through the same file, which does not change."""
    world = made.world()
    store.load(world)
    frozen = made.freeze(store, policy, tmp_path / "m")
    before = (tmp_path / "m" / croissant.NAME).read_bytes()
    made.withdraw(store, "a2", LATER)
    lifecycle.start(store.job(policy, LATER), frozen.description.id)
    found = read(validated(tmp_path / "m"), "revocations")
    assert {row["message_id"] for row in found} == made.of(store, world, "a2c1", "a2c2")
    assert found == made.rows(tmp_path / "m", "revoked")
    assert (tmp_path / "m" / croissant.NAME).read_bytes() == before


def test_a_changed_context_is_noticed(store: Store, policy: Policy, tmp_path: Path, validated: Any) -> None:
    """The validation of these tests does see a fault: a context that is not the standard one, a missing property."""
    made.freeze(store, policy, tmp_path / "m")
    whole = said(tmp_path / "m")
    for broken in (
        {**whole, "@context": {key: value for key, value in whole["@context"].items() if key != "recordSet"}},
        {key: value for key, value in whole.items() if key != "license"},
    ):
        (tmp_path / "m" / croissant.NAME).write_text(json.dumps(broken))
        with pytest.raises(AssertionError):
            validated(tmp_path / "m")


def test_conforms_and_names_every_file(store: Store, policy: Policy, tmp_path: Path) -> None:
    """It names the two vocabularies, and each part with its size and SHA-256."""
    store.load(made.world())
    made.freeze(store, policy, tmp_path / "m")
    found = said(tmp_path / "m")
    assert found["conformsTo"] == [
        "http://mlcommons.org/croissant/1.0",
        "http://mlcommons.org/croissant/RAI/1.0",
    ]
    files = {entry["@id"]: entry for entry in found["distribution"] if entry["@type"] == "cr:FileObject"}
    assert set(files) == {path.name for path in (tmp_path / "m").glob("part-*")}
    for name, entry in files.items():
        content = (tmp_path / "m" / name).read_bytes()
        assert (entry["sha256"], entry["contentSize"]) == (sha256(content).hexdigest(), f"{len(content)} B")
        assert entry["contentUrl"] == name


def test_responsible_fields(store: Store, policy: Policy, tmp_path: Path, validated: Any) -> None:
    """The fields of responsible AI are there, and mlcroissant knows each."""
    made.freeze(store, policy, tmp_path / "m")
    found, metadata = said(tmp_path / "m"), validated(tmp_path / "m").metadata
    assert all(found[f"rai:{name}"] for name in RAI)
    known = set(metadata.to_json())
    assert {name for name in found if name.startswith("rai:")} <= known


def test_what_is_said_of_text(store: Store, policy: Policy, tmp_path: Path) -> None:
    """It says whether there is text, by what it was filtered, and loudly where it was not."""
    store.load(made.world(accounts=1))
    store.execute("UPDATE messages SET body = 'write to jane@example.com'")

    def personal(name: str, under: Policy, *, with_text: bool) -> str:
        made.built(store, under, tmp_path / name, with_text=with_text)
        return str(said(tmp_path / name)["rai:personalSensitiveInformation"])

    assert "hold no text" in personal("none", policy, with_text=False)
    assert "8 findings replaced, 0 texts withheld" in personal("filtered", policy, with_text=True)
    assert "UNFILTERED" in personal("as written", made.as_written(policy), with_text=True)
    assert "sweeper.manifest.filter 1" in said(tmp_path / "filtered")["rai:dataPreprocessingProtocol"]


def test_what_is_said_of_the_scope(store: Store, policy: Policy, tmp_path: Path) -> None:
    """It says which scope the policy took."""
    limits = []
    for scope in ("from_opt_in", "entire"):
        made.built(store, trained(policy, scope), tmp_path / scope)
        limits.append(said(tmp_path / scope)["rai:dataLimitations"])
    assert "only messages written under it" in limits[0]
    assert "written before" in limits[1]


def test_every_type_has_its_word(store: Store, policy: Policy, tmp_path: Path) -> None:
    """Every column of a manifest and of its revocations is described, text included."""
    description: Description = made.built(store, policy, tmp_path / "m", with_text=True)
    sets = {entry["@id"]: entry["field"] for entry in said(tmp_path / "m")["recordSet"]}
    assert [field["name"] for field in sets["messages"]] == [column.name for column in description.schema_]
    assert [field["name"] for field in sets["revocations"]] == [column.name for column in parquet.REVOKED]
    assert all(field["dataType"] and field["description"] for fields in sets.values() for field in fields)
