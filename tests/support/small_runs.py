"""A run directory made step by step without a driver, so that any state of it can be looked at."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fakes import segmented

from tilesseg.cluster.executors import SerialExecutor
from tilesseg.events import TileDone, TileFailed
from tilesseg.models.bundle import find_bundle
from tilesseg.models.load import Model, load_model
from tilesseg.planning.job import Job, parse_job
from tilesseg.planning.machine import Machine
from tilesseg.planning.plan import Plan, plan_job
from tilesseg.planning.scene_list import Scene, find_scenes
from tilesseg.planning.scene_plan import SceneRun
from tilesseg.planning.stored_plan import stored_scene_plan, try_scene
from tilesseg.run.finish_scene import finish_scene
from tilesseg.store.run_directory import RunDirectory


class SmallRun:
    """A job whose scenes are planned, segmented, failed and finished by the test itself."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.job: Job = parse_job(data, where="test")
        self.plan: Plan = plan_job(self.job, Machine("cpu", 1, 2))
        self.run = RunDirectory.create(Path(self.job.output.dir))
        self.scenes: tuple[Scene, ...] = find_scenes(self.job.scenes)
        self.run.write_json("plan.json", self.plan.to_json())
        self.run.write_text("job.yaml", "name: " + self.job.name + "\n")
        lines = [json.dumps({"name": scene.name, "paths": scene.paths}) + "\n" for scene in self.scenes]
        self.run.write_text("scenes.jsonl", "".join(lines))
        bundle = find_bundle(self.plan.model)
        self.model: Model = load_model(bundle, device="cpu", threads=1)

    @property
    def names(self) -> list[str]:
        return [scene.name for scene in self.scenes]

    def plan_scenes(self, *names: str) -> None:
        for scene in self.scenes:
            if not names or scene.name in names:
                try_scene(scene, run=self.run, plan=self.plan, job=self.job)

    def segment(self, scene: str, *, limit: int | None = None, fail: Iterable[str] = (), **fields: Any) -> None:
        """Do and log the tiles that are not done yet, in the order of their ends; `fields` replace the records'."""
        store = self.run.scene(scene)
        plan = stored_scene_plan(store)
        assert plan is not None
        source, recipe, done = (
            plan.open(),
            plan.recipe(self.plan),
            set(store.done_names()),
        )
        left = [tile for tile in plan.tiling if tile.name not in done][:limit]
        records = []
        for number, tile in enumerate(left):
            if tile.name in fail:
                store.mark_failed(TileFailed(scene, tile.name, tile.core.area, "ValueError: planted", "node1:7"))
                continue
            record = segmented(tile, source=source, model=self.model, store=store, recipe=recipe)
            own = {key: value(number) if callable(value) else value for key, value in fields.items()}
            records.append(store.mark_done(replace(record, **own)))
        for record in sorted(records, key=lambda record: record.started + record.wall):
            self.run.log(record, record.started + record.wall)

    def finish(self, scene: str) -> None:
        store = self.run.scene(scene)
        plan = stored_scene_plan(store)
        assert plan is not None
        finish_scene(SceneRun(store, self.plan, plan), self.job.output, executor=SerialExecutor(), threads=1)

    def records(self, scene: str) -> dict[str, TileDone]:
        return self.run.scene(scene).done()
