"""MkDocs hook that writes the reference from the program itself: the settings, the policy file and the command line.

A page names what goes where: `<!-- generated: settings -->`. Descriptions are those of the pydantic models and of typer.
Each adapter of `sweeper/apps` brings a page of its own.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from sweeper import applications
from sweeper.cli import app
from sweeper.policy.schema import Policy
from sweeper.settings import Settings

PLACE = re.compile(r"<!-- generated: (\w+) -->")
WORDS = {"integer": "whole number", "number": "number", "boolean": "`true` or `false`", "object": "table"}
FORMATS = {"date-time": "instant", "path": "path"}
PERIOD = "Period"
"""The model of what is written as a text."""
Schema = dict[str, Any]


def on_config(config: MkDocsConfig) -> None:
    """Add the pages of the adapters to the navigation."""
    pages = [{applications.load(name).title: _page(name)} for name in applications.names()]
    (section,) = (each for each in config["nav"] if "Applications" in each)
    section["Applications"].extend(pages)


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages of the adapters to the site."""
    for name in applications.names():
        text = (applications.FOLDER / name / "page.md").read_text(encoding="utf-8")
        files.append(File.generated(config, _page(name), content=text))


def _page(name: str) -> str:
    return f"applications/{name}.md"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the generated parts of a page."""
    return PLACE.sub(lambda found: "\n".join(GENERATED[found[1]]()), markdown)


def settings() -> Iterator[str]:
    """One section per table of the settings file, in the order of the models."""
    return _tables(_schema(Settings))


def policy() -> Iterator[str]:
    """The top level of the policy file, and one section per table."""
    schema = _schema(Policy)
    yield from _table("Top level", {**schema, "description": "Keys that are in no table."}, schema["$defs"])
    yield from _tables(schema)


def commands() -> Iterator[str]:
    """One section per command, with its arguments, options and example."""
    root = typer.main.get_command(app)
    for name, command in _leaves(root, "sweeper"):
        yield from (f"## `{name}`", "")
        text, _, example = (command.help or "").partition("Example: ")
        yield from (text.strip(), "")
        if example:
            yield from ("```text", f"$ {example.strip()}", "```", "")
        context = typer.Context(command, info_name=name)
        rows = [_parameter(each, context) for each in command.params if not getattr(each, "hidden", False)]
        yield from ("| argument or option | what it does |", "|---|---|", *rows, "")


def adapters() -> Iterator[str]:
    """The applications that are known, with links to their pages."""
    yield from ("| application | `--app` | tested with |", "|---|---|---|")
    for each in map(applications.load, applications.names()):
        yield f"| [{each.title}]({_page(each.name)}) | `{each.name}` | {each.shape} |"


def _schema(model: type[BaseModel]) -> Schema:
    return model.model_json_schema(by_alias=True, schema_generator=_Generator)


class _Generator(GenerateJsonSchema):
    """Writes what JSON cannot express as a schema without conditions."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Schema:
        return {}


def _tables(schema: Schema, parent: str = "", of: Schema | None = None) -> Iterator[str]:
    """One section per table below `of` (the schema itself), titled as TOML writes it: `[purge]`, `[[purge.children]]`."""
    for key, found in (of or schema)["properties"].items():
        name, written = _reference(found)
        target = schema["$defs"].get(name, {})
        if "properties" in target and name != PERIOD:
            path = f"{parent}{key}{'.NAME' if written == 'object' else ''}"
            yield from _table(f"[[{path}]]" if written == "array" else f"[{path}]", target, schema["$defs"])
            yield from _tables(schema, f"{path}.", target)


def _table(title: str, schema: Schema, definitions: Schema) -> Iterator[str]:
    yield from (f"## {title}", "", " ".join(schema["description"].split()), "")
    yield from ("| key | type | default | description |", "|---|---|---|---|")
    required = schema.get("required", [])
    for key, found in schema["properties"].items():
        default = "required" if key in required else _default(found.get("default"))
        what = " ".join(found.get("description", "").split())
        yield f"| `{key}` | {_cell(_type(found, definitions))} | {default} | {_cell(what)} |"
    yield ""


def _default(value: object) -> str:
    if value is None or value in ({}, []):
        return "none" if value is None else "empty"
    if isinstance(value, dict):
        return "see its table"
    written = str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else value
    return f"`{written}`"


def _reference(found: Schema) -> tuple[str, str]:
    """The model that a property leads to ("" if none), and how: "object" by name, "array" as a list, "" directly."""
    if "$ref" in found:
        return found["$ref"].rpartition("/")[2], ""
    below = [(each, "") for each in found.get("anyOf", [])]
    below += [(found.get("items"), "array"), (found.get("additionalProperties"), "object")]
    for each, way in below:
        if isinstance(each, dict) and (known := _reference(each))[0] and known[0] != PERIOD:
            return known[0], way or known[1]
    return "", ""


def _type(found: Schema, definitions: Schema) -> str:
    """The type of a property in words."""
    if "$ref" in found:
        name = _reference(found)[0]
        return (
            _choices(definitions[name]["enum"])
            if "enum" in definitions[name]
            else PERIOD.lower()
            if name == PERIOD
            else "table"
        )
    if "anyOf" in found:
        return " or ".join(
            dict.fromkeys(_type(each, definitions) for each in found["anyOf"] if each.get("type") != "null")
        )
    if "enum" in found or "const" in found:
        return _choices(found.get("enum") or [found["const"]])
    if found.get("type") == "array":
        of = _type(found["items"], definitions)
        return "tables" if of == "table" else f"list of {of}"
    word = FORMATS.get(found.get("format", "")) or WORDS.get(
        found.get("type", ""), "text" if "type" in found else "value"
    )
    return f"{word}{_bounds(found)}"


def _choices(values: list[object]) -> str:
    return ", ".join(f'`"{value}"`' if isinstance(value, str) else f"`{value}`" for value in values)


def _bounds(found: Schema) -> str:
    low = found.get("minimum", found.get("exclusiveMinimum"))
    if low is None or "maximum" not in found:
        return ""
    return f", {'above ' if 'exclusiveMinimum' in found else ''}{low} to {found['maximum']}"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
    for word, each in (inner or {}).items():
        yield from _leaves(each, f"{name} {word}")


def _parameter(parameter: Any, context: Any) -> str:
    written, what = parameter.get_help_record(context)
    return f"| `{_cell(written)}` | {_cell(what)} |"


GENERATED: dict[str, Callable[[], Iterator[str]]] = {
    "settings": settings,
    "policy": policy,
    "commands": commands,
    "adapters": adapters,
}
