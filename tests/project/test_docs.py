"""The documentation names what exists: links, images, commands, options, keys, modules; and leaves out none of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel

import tilesseg
from tilesseg.cli.main import app
from tilesseg.models.spec import NAMED_COLOURS, ModelSpec
from tilesseg.planning.job import Job
from tilesseg.training.train_spec import TrainSpec

CHECKOUT = Path(__file__).resolve().parents[2]
DOCS = CHECKOUT / "docs"
PAGES = sorted([*CHECKOUT.glob("*.md"), *DOCS.rglob("*.md"), *(CHECKOUT / "workflows").rglob("*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^[ ]*```.*?^[ ]*```", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")

SPEC_PAGES: list[tuple[type[BaseModel], str]] = [
    (Job, "job-file.md"),
    (ModelSpec, "model-yaml.md"),
    (TrainSpec, "training-spec.md job-file.md"),
]
"""Pages of each file that a user writes; a section that it shares with another stands on the other's."""
Commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def prose(path: Path) -> str:
    """The page without its code blocks."""
    return CODE.sub("", text_of(path))


def anchors(path: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def sections(path: Path) -> dict[str, str]:
    """The text below each heading of the second level, code blocks included."""
    parts = re.split(r"^## (.+)$", text_of(path), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True)) | {"": parts[0]}


def options_of(command: Any) -> set[str]:
    """Options of a command, and of the commands that it groups."""
    shown = (one for one in command.params if not getattr(one, "hidden", False))
    own = {name for one in shown for name in (*one.opts, *one.secondary_opts) if name.startswith("--")} - {"--help"}
    return own.union(*map(options_of, getattr(command, "commands", {}).values()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_links_and_images_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = page if not name else (page.parent / name).resolve()
        assert file.exists(), f"{page.name} links to {target}"
        assert file.is_relative_to(CHECKOUT), f"{page.name} links out of the checkout: {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}; there is {sorted(anchors(file))}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, pending = set[Path](), [CHECKOUT / "README.md"]
    while pending:
        page = pending.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        links = (target.partition("#")[0] for target in LINK.findall(prose(page)) if "://" not in target)
        pending += [(page.parent / link).resolve() for link in links if link]
    assert set(DOCS.rglob("*.md")) - reached == set()


def test_every_page_stands_in_the_navigation_of_the_site() -> None:
    listed = set(re.findall(r"[\w./-]+\.md", text_of(CHECKOUT / "mkdocs.yml")))
    assert {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - listed == set()


def test_every_command_has_a_section_and_every_section_is_a_command() -> None:
    found = set(sections(DOCS / "reference" / "command-line.md")) - {"", "Environment"}
    assert found == set(Commands)


@pytest.mark.parametrize("name", Commands)
def test_the_section_of_a_command_names_its_options_and_no_others(name: str) -> None:
    section = sections(DOCS / "reference" / "command-line.md")[name]
    assert set(OPTION.findall(section)) == options_of(Commands[name])


@pytest.mark.parametrize("name", Commands)
def test_every_command_explains_itself_and_its_options_and_ends_with_an_example(name: str) -> None:
    command = Commands[name]
    assert command.help and str(command.epilog).startswith(f"Example: tilesseg {name}")
    for one in (command, *getattr(command, "commands", {}).values()):
        assert one.help and str(one.epilog).startswith(f"Example: tilesseg {name}")
        assert [option.name for option in one.params if not getattr(option, "help", None)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_commands_on_a_page_exist_with_these_options(page: Path) -> None:
    known = {option for command in Commands.values() for option in options_of(command)} | {"--help", "--version"}
    for line in re.findall(r"(?:^\$ |`)tilesseg ([^`\n]+)", text_of(page), re.MULTILINE):
        command = line.split()[0]
        assert command in {*Commands, "COMMAND", "--help", "--version"}, f"tilesseg {line}"
        options = options_of(Commands[command]) if command in Commands else known
        assert set(OPTION.findall(line)) <= options | {"--help"}, f"tilesseg {line}"


def keys_of(model: type[BaseModel]) -> Iterator[str]:
    """Every key that the JSON Schema knows, at any depth."""
    schema = model.model_json_schema()
    for part in (schema, *schema.get("$defs", {}).values()):
        yield from part.get("properties", {})


@pytest.mark.parametrize(("model", "pages"), SPEC_PAGES)
def test_every_key_is_documented(model: type[BaseModel], pages: str) -> None:
    text = "".join(text_of(DOCS / "reference" / page) for page in pages.split())
    assert [key for key in keys_of(model) if not re.search(rf"`[^`\n]*\b{key}\b[^`\n]*`", text)] == []


@pytest.mark.parametrize(("model", "pages"), SPEC_PAGES)
def test_every_documented_key_exists(model: type[BaseModel], pages: str) -> None:
    text = text_of(DOCS / "reference" / pages.split()[0])
    rows = re.findall(r"^\| (`[^|]+) \| (?:[^|]*) \| [^|]+ \|$", text, re.MULTILINE)
    documented = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    assert documented and documented <= set(keys_of(model))


def test_every_colour_that_has_a_name_is_listed() -> None:
    text = sections(DOCS / "reference" / "model-yaml.md")["classes"]
    assert [name for name in NAMED_COLOURS if name not in text] == []


@pytest.mark.parametrize("model", [Job, ModelSpec, TrainSpec])
def test_every_key_explains_itself_in_the_json_schema(model: type[BaseModel]) -> None:
    schema = model.model_json_schema()
    sections = {model.__name__: schema, **schema["$defs"]}
    keys = {f"{name}.{key}": field for name, part in sections.items() for key, field in part["properties"].items()}
    assert [key for key, field in keys.items() if not field.get("description")] == []


KEYS_OF_OPTIONS = {
    "segment": "Job.model Job.engine Job.precision Input.bands Input.scale Input.offset Input.mpp Input.resolution "
    "Input.level Input.series Input.t Input.z Input.tissue Input.outside Input.stage TilingOptions.patch "
    "TilingOptions.overlap TilingOptions.blend Product.beside Product.resolution=at Cluster.workers",
    "demo": "Job.engine Job.precision",
    "stage": "Cluster.workers",
    "export": "Product.path=out Product.format=product_format Product.overviews Product.resolution=at "
    "Product.version=ome_version Product.beside Product.classes Product.min_area Product.simplify Product.canvas",
}
"""Keys of a job that options of a command set, with the option's name where it is another."""


@pytest.mark.parametrize("command", KEYS_OF_OPTIONS)
def test_an_option_shows_the_text_of_its_key(command: str) -> None:
    options = {one.name: one for one in Commands[command].params}
    schema = Job.model_json_schema()
    for path, _, option in (pair.partition("=") for pair in KEYS_OF_OPTIONS[command].split()):
        section, key = path.split(".")
        keys = (schema if section == "Job" else schema["$defs"][section])["properties"]
        text = " ".join(keys[key]["description"].split()).replace("`", "")
        assert options[option or key].help.startswith(text), f"{command} --{option or key}"


def names_of_modules() -> set[str]:
    package = CHECKOUT / "tilesseg"
    files = [path.relative_to(CHECKOUT).with_suffix("") for path in package.rglob("*.py")]
    return {".".join(path.parts).removesuffix(".__init__") for path in files}


FOLDERS = ("tilesseg", "tests", "benchmarks", "workflows", "docs")
SCRIPTS = [f"/{path.relative_to(CHECKOUT)}" for folder in FOLDERS for path in (CHECKOUT / folder).rglob("*.py")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_modules_and_files_on_a_page_exist(page: Path) -> None:
    known = names_of_modules()
    for dotted in re.findall(r"`(tilesseg(?:\.\w+)+)`", text_of(page)):
        module, _, name = dotted.rpartition(".")
        assert dotted in known or module in known or hasattr(tilesseg, name), f"{page.name} names {dotted}"
    for path in re.findall(r"`((?:tilesseg|tests|workflows|docs|benchmarks)/[\w./-]+\.\w+)`", text_of(page)):
        assert (CHECKOUT / path).exists(), f"{page.name} names {path}"
    for path in re.findall(r"`([\w./]+\.py)`", text_of(page)):
        assert any(file.endswith(f"/{path}") for file in SCRIPTS), f"{page.name} names {path}"


def test_pictures_are_small_enough_for_a_page() -> None:
    assert [path.name for path in (DOCS / "images").iterdir() if path.stat().st_size > 700_000] == []
