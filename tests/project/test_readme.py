"""Every code block of README.md, docs/ and workflows/ is run, in order, in an empty folder per document.

A ```python block is run as a script. A ```console block holds commands after `$ ` and what they print (which is not
compared); a ```bash or ```sh block holds commands alone. Only `tilesseg` is run: a block with any other command must
say why it is not run, on the line above: `<!-- test: skip needs a cluster -->`. A ```yaml block with a title
(```yaml title="job.yaml") is written to the file of that name, for the blocks below it.

Most documents begin with the same `tilesseg demo` in the empty folder. README.md runs it; of the others the first one
does, and the rest begin with a copy of the folder that it left.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    CHECKOUT / "README.md",
    *sorted((CHECKOUT / "docs").rglob("*.md")),
    *sorted((CHECKOUT / "workflows").rglob("*.md")),
]
SLOW = ("docs/tutorial-train.md",)
"""Documents whose blocks take minutes."""
FENCE = re.compile(
    r"(?:^[ ]*<!-- test: skip (?P<reason>\S.*?) -->[ ]*\n+)?"
    r"^(?P<indent>[ ]*)```(?P<language>python|console|bash|sh|yaml(?= title=))"
    r"(?: title=\"(?P<title>[^\"\n]+)\")?[^\n]*\n(?P<body>.*?)^[ ]*```[ ]*$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Block:
    language: str
    body: str
    line: int
    reason: str | None
    """Why it is not run."""
    title: str | None = None
    """The file that a YAML block is."""


def blocks_of(text: str) -> list[Block]:
    def block(match: re.Match[str]) -> Block:
        body = "\n".join(line.removeprefix(match["indent"]) for line in match["body"].splitlines())
        line = text.count("\n", 0, match.start("language")) + 1
        return Block(match["language"], body, line, match["reason"], match["title"])

    return [block(match) for match in FENCE.finditer(text)]


def commands_of(block: Block) -> list[str]:
    """The commands of a shell block, continuation lines joined."""
    lines = block.body.replace("\\\n", " ").splitlines()
    if block.language == "console":
        return [line.removeprefix("$ ").strip() for line in lines if line.startswith("$ ")]
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


@dataclass(frozen=True)
class Demos:
    """Folders that a command of `tilesseg demo` left behind, below one folder."""

    home: Path
    left: dict[str, Path] = field(default_factory=dict)

    def share(self, command: str, folder: Path) -> bool:
        """Copy what the command left in another empty folder, and say whether there was anything to copy."""
        if known := command in self.left:
            shutil.copytree(self.left[command], folder, dirs_exist_ok=True)
        return known

    def keep(self, command: str, folder: Path) -> None:
        self.left[command] = shutil.copytree(folder, self.home / str(len(self.left)))


def run(block: Block, folder: Path, demos: Demos | None = None) -> None:
    """Run a block; with `demos`, a demo in an empty folder is made only once."""
    if block.language == "yaml":
        assert block.title is not None  # only such blocks are found
        (folder / block.title).write_text(block.body + "\n", encoding="utf-8")
        return
    if block.language == "python":
        script = folder / f"block_at_line_{block.line}.py"
        script.write_text(block.body, encoding="utf-8")
        commands = [[sys.executable, script.name]]
    else:
        texts = commands_of(block)
        assert texts, f"line {block.line}: a block without a command"
        strangers = [text for text in texts if not text.startswith("tilesseg ")]
        assert not strangers, (
            f"line {block.line}: put <!-- test: skip REASON --> above, or run only tilesseg: {strangers}"
        )
        commands = [["bash", "-euc", text] for text in texts]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in commands:
        demo = demos is not None and command[-1].startswith("tilesseg demo ") and not any(folder.iterdir())
        if demo and demos.share(command[-1], folder):
            continue
        done = subprocess.run(command, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True)
        assert done.returncode == 0, f"line {block.line}: {command[-1]}\n{done.stdout}\n{done.stderr}"
        if demo:
            demos.keep(command[-1], folder)


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Demos:
    return Demos(tmp_path_factory.mktemp("demos"))


def _documents() -> list[Any]:
    """Documents, of which those that take minutes are marked as slow."""
    named = [(str(path.relative_to(CHECKOUT)), path) for path in DOCUMENTS]
    return [pytest.param(path, id=name, marks=[pytest.mark.slow] * (name in SLOW)) for name, path in named]


@pytest.mark.parametrize("document", _documents())
def test_what_a_document_shows_works(document: Path, tmp_path: Path, demos: Demos) -> None:
    for block in blocks_of(document.read_text(encoding="utf-8")):
        if block.reason is None:
            run(block, tmp_path, None if document == DOCUMENTS[0] else demos)


def test_the_readme_shows_something_that_runs() -> None:
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    assert [block for block in blocks_of(text) if block.reason is None]


EXAMPLE = """
Text.

```console
$ tilesseg inspect a.tif \\
    --json
{"height": 3}
$ tilesseg models
```

<!-- test: skip needs a cluster -->
```bash
sbatch job.sh
```

1. In a list:

   ```python
   if True:
       x = 1
   ```

```yaml
name: no code
```

```yaml title="job.yaml"
name: a file
```
"""


def test_blocks_are_found_with_their_language_line_and_reason() -> None:
    found = [(b.language, b.line, b.reason) for b in blocks_of(EXAMPLE)]
    assert found == [("console", 4, None), ("bash", 12, "needs a cluster"), ("python", 18, None), ("yaml", 27, None)]


def test_commands_are_the_lines_after_a_dollar_with_their_continuations() -> None:
    first, second, third, _ = blocks_of(EXAMPLE)
    assert [" ".join(c.split()) for c in commands_of(first)] == ["tilesseg inspect a.tif --json", "tilesseg models"]
    assert commands_of(second) == ["sbatch job.sh"]
    assert third.body == "if True:\n    x = 1"


def test_a_block_with_another_command_must_say_why_it_is_not_run(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="sbatch"):
        run(blocks_of(EXAMPLE)[1], tmp_path)


def test_a_titled_yaml_block_is_a_file_for_the_blocks_below(tmp_path: Path) -> None:
    run(blocks_of(EXAMPLE)[3], tmp_path)
    assert (tmp_path / "job.yaml").read_text(encoding="utf-8") == "name: a file\n"


def test_a_block_that_fails_fails_its_test_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="broken"):
        run(Block("python", "raise SystemExit('broken')", 1, None), tmp_path)
