"""The page `/tilesseg`, added to the dashboard of a running scheduler: the document of a browser, and its updates."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

from bokeh.models import InlineStyleSheet
from bokeh.models.widgets import Div, Select

from tilesseg.monitoring.dashboard import page_text
from tilesseg.monitoring.dashboard.boards import Boards
from tilesseg.monitoring.dashboard.scene_table import SceneTable
from tilesseg.monitoring.dashboard.tile_map import TileMap
from tilesseg.monitoring.dashboard.timeline_charts import RateChart, Timeline
from tilesseg.monitoring.live.run_board import RunBoard
from tilesseg.monitoring.live.scene_board import SceneBoard

if TYPE_CHECKING:
    from distributed import Scheduler


EVERY = 1000
"""Milliseconds between two updates."""
TEXTS = ("header", "legend", "split", "workers", "failures")


def add_page(scheduler: Scheduler, boards: Boards) -> None:
    """Add the page and its tab, by names of distributed that may change.

    Raises:
        RuntimeError: the dashboard of this scheduler is switched off.
    """
    from distributed.dashboard.core import BokehApplication
    from distributed.dashboard.scheduler import template_variables

    pages = [app for app in scheduler.http_application.applications if hasattr(app, "app_paths")]
    if not pages:
        raise RuntimeError("its dashboard is switched off, or it has no bokeh")
    prefix = (getattr(pages[0], "_prefix", "") or "").strip("/")
    shared = template_variables(scheduler)

    def serve(server: Scheduler, extra: dict[str, Any], doc: Any) -> None:
        fill_document(boards, extra, doc)

    application = BokehApplication({"/tilesseg": serve}, scheduler, prefix=prefix, template_variables=shared)
    scheduler.http_application.add_application(application)
    application.initialize(scheduler.loop)
    application.start()
    if "tilesseg" not in shared["pages"]:
        shared["pages"].insert(1, "tilesseg")


def fill_document(boards: Boards, extra: dict[str, Any], doc: Any) -> None:
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
    """View of one browser: the run and the scene that it shows, and its charts."""

    def __init__(self, boards: Boards, *, scene: str | None = None, run: str | None = None) -> None:
        self._boards, self._scene, self._run = boards, scene, run
        self._followed: str | None = None
        self._shown = ""
        self.scenes, self.tile_map, self.rate, self.timeline = (
            SceneTable(self.choose),
            TileMap(),
            RateChart(),
            Timeline(),
        )
        style = InlineStyleSheet(
            css=files("tilesseg.monitoring.dashboard").joinpath("texts.css").read_text(encoding="utf-8")
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
        """Show a scene, which a person has chosen."""
        self._scene = scene
        self.update()

    def update(self) -> None:
        """Send the changes since the last update."""
        self._boards.tick()
        board = self._boards.by_run.get(self._run or "") or self._boards.latest
        self._show_text("header", page_text.header(board))
        if board is None:
            return
        self._offer_runs(board)
        tables = self._boards.tables()
        scene = self._scene_of(board)
        name = scene.name if scene else None
        busy = {tile: phase for (owner, tile), phase in self._boards.busy().items() if owner == name}
        self.scenes.update(board, name)
        self.tile_map.update(scene, busy, board.workers.names)
        self.rate.update(board)
        self.timeline.update(board, tables)
        self._show_text("legend", page_text.legend(scene, busy, self.tile_map.factor))
        self._show_text("split", page_text.split(board.seconds))
        self._show_text("workers", page_text.workers(board, tables))
        self._show_text("failures", page_text.failures(board))

    def _scene_of(self, board: RunBoard) -> SceneBoard | None:
        """Scene that a person has chosen, else one that runs, for as long as it runs, else the last that ended."""
        for name in (self._scene, self._followed):
            scene = board.scenes.get(name or "")
            if scene is not None and (name == self._scene or scene.state == "running"):
                return scene
        running = next((scene for scene in board.in_order() if scene.state == "running"), None)
        latest = max(board.scenes.values(), key=lambda scene: scene.ended, default=None)
        followed = running or board.scenes.get(self._followed or "") or latest
        self._followed = followed.name if followed else None
        return followed

    def _show_text(self, name: str, text: str) -> None:
        if self.texts[name].text != text:
            self.texts[name].text = text

    def _offer_runs(self, board: RunBoard) -> None:
        """Offer a choice of runs, where the scheduler has had more than one."""
        runs = [(run, f"{each.job or 'job'} – {run}") for run, each in reversed(self._boards.by_run.items())]
        if self.chooser.options != runs:
            self.chooser.update(options=runs, visible=len(runs) > 1)
        self._shown = board.run
        if self.chooser.value != board.run:
            self.chooser.value = board.run

    def _choose_run(self, attribute: str, old: str, new: str) -> None:
        if new == self._shown:  # the page itself has set the value
            return
        latest = self._boards.latest
        self._run = None if latest is not None and new == latest.run else new
        self._scene = self._followed = None


def _argument(doc: Any, name: str) -> str | None:
    """Argument in the page's address: `?scene=` or `?run=`."""
    request = doc.session_context.request if doc.session_context else None
    values = request.arguments.get(name) if request else None
    return values[0].decode("utf-8", "replace") if values else None
