"""The page `/tilesseg`: what a browser gets, and how it stays up to date. Added to a running scheduler's dashboard."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

from bokeh.models import InlineStyleSheet
from bokeh.models.widgets import Div, Select

from tilesseg.monitoring.dashboard import page_text as words
from tilesseg.monitoring.dashboard.boards import Boards
from tilesseg.monitoring.dashboard.scene_table import SceneList
from tilesseg.monitoring.dashboard.tile_map import TileMap
from tilesseg.monitoring.dashboard.timeline_charts import RateChart, Timeline
from tilesseg.monitoring.live.run_board import RunBoard
from tilesseg.monitoring.live.scene_board import SceneBoard

if TYPE_CHECKING:
    from distributed import Scheduler


EVERY = 1000
"""Milliseconds between two looks at the board."""
TEXTS = ("header", "legend", "split", "workers", "failures")


def add(scheduler: Scheduler, boards: Boards) -> None:
    """Add the page and its tab; these are names of distributed that may change.

    Raises:
        RuntimeError: the dashboard of this scheduler is switched off.
    """
    from distributed.dashboard.core import BokehApplication
    from distributed.dashboard.scheduler import template_variables

    theirs = [app for app in scheduler.http_application.applications if hasattr(app, "app_paths")]
    if not theirs:
        raise RuntimeError("its dashboard is switched off, or it has no bokeh")
    prefix = (getattr(theirs[0], "_prefix", "") or "").strip("/")
    shared = template_variables(scheduler)

    def serve(server: Scheduler, extra: dict[str, Any], doc: Any) -> None:
        show(boards, extra, doc)

    application = BokehApplication({"/tilesseg": serve}, scheduler, prefix=prefix, template_variables=shared)
    scheduler.http_application.add_application(application)
    application.initialize(scheduler.loop)
    application.start()
    if "tilesseg" not in shared["pages"]:
        shared["pages"].insert(1, "tilesseg")


def show(boards: Boards, extra: dict[str, Any], doc: Any) -> None:
    """Fill a document for one browser."""
    from distributed.dashboard.components.scheduler import BOKEH_THEME, env

    view = View(boards, scene=_argument(doc, "scene"), run=_argument(doc, "run"))
    view.update()
    for root in view.roots:
        doc.add_root(root)
    doc.add_periodic_callback(view.update, EVERY)
    doc.title = "tilesseg"
    doc.theme = BOKEH_THEME
    doc.template = env.from_string(
        files("tilesseg.monitoring.dashboard").joinpath("page.html").read_text(encoding="utf-8")
    )
    doc.template_variables.update(extra)


class View:
    """What one browser looks at."""

    def __init__(self, boards: Boards, *, scene: str | None = None, run: str | None = None) -> None:
        self._boards, self._scene, self._run = boards, scene, run
        self._followed: str | None = None
        self._shown = ""
        self.scenes, self.tile_map, self.rate, self.timeline = (
            SceneList(self.choose),
            TileMap(),
            RateChart(),
            Timeline(),
        )
        style = InlineStyleSheet(
            css=files("tilesseg.monitoring.dashboard").joinpath("words.css").read_text(encoding="utf-8")
        )
        self.texts = {
            name: Div(name=name, margin=0, sizing_mode="stretch_width", stylesheets=[style]) for name in TEXTS
        }
        self.chooser = Select(name="chooser", visible=False, options=[], margin=0, sizing_mode="stretch_width")
        self.chooser.on_change("value", self._choose_run)

    @property
    def roots(self) -> list[Any]:
        charts = (self.scenes, self.tile_map, self.rate, self.timeline)
        return [*self.texts.values(), self.chooser, *(chart.root for chart in charts)]

    def choose(self, scene: str) -> None:
        """A person wants to see a scene."""
        self._scene = scene
        self.update()

    def update(self) -> None:
        """Send what is new."""
        self._boards.tick()
        board = self._boards.by_run.get(self._run or "") or self._boards.latest
        self._say("header", words.header(board))
        if board is None:
            return
        self._offer_runs(board)
        said = self._boards.tables()
        scene = self._scene_of(board)
        name = scene.name if scene else None
        busy = {tile: phase for (owner, tile), phase in self._boards.busy().items() if owner == name}
        self.scenes.update(board, name)
        self.tile_map.update(scene, busy, board.workers.names)
        self.rate.update(board)
        self.timeline.update(board, said)
        self._say("legend", words.legend(scene, busy, self.tile_map.factor))
        self._say("split", words.split(board.seconds))
        self._say("workers", words.workers(board, said))
        self._say("failures", words.failures(board))

    def _scene_of(self, board: RunBoard) -> SceneBoard | None:
        """The scene that was chosen, else one that runs, for as long as it runs, else the last that ended."""
        for wanted in (self._scene, self._followed):
            found = board.scenes.get(wanted or "")
            if found is not None and (wanted == self._scene or found.state == "running"):
                return found
        running = next((scene for scene in board.in_order() if scene.state == "running"), None)
        latest = max(board.scenes.values(), key=lambda scene: scene.ended, default=None)
        found = running or board.scenes.get(self._followed or "") or latest
        self._followed = found.name if found else None
        return found

    def _say(self, name: str, text: str) -> None:
        if self.texts[name].text != text:
            self.texts[name].text = text

    def _offer_runs(self, board: RunBoard) -> None:
        """A choice of runs, where the scheduler has had more than one."""
        runs = [(run, f"{each.job or 'job'} – {run}") for run, each in reversed(self._boards.by_run.items())]
        if self.chooser.options != runs:
            self.chooser.update(options=runs, visible=len(runs) > 1)
        self._shown = board.run
        if self.chooser.value != board.run:
            self.chooser.value = board.run

    def _choose_run(self, attribute: str, old: str, new: str) -> None:
        if new == self._shown:  # it is the page itself that says so
            return
        latest = self._boards.latest
        self._run = None if latest is not None and new == latest.run else new
        self._scene = self._followed = None


def _argument(doc: Any, name: str) -> str | None:
    """Of the page's address: `?scene=` and `?run=`."""
    request = doc.session_context.request if doc.session_context else None
    found = request.arguments.get(name) if request else None
    return found[0].decode("utf-8", "replace") if found else None
