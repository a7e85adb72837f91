"""`tilesseg models`: the models that have a name."""

from __future__ import annotations

import json

from tilesseg.cli.options import AsJson


def models(as_json: AsJson = False) -> None:
    """List the models known by name: in the package, and in the folders on TILESSEG_MODELS."""
    from tilesseg.models.bundle import list_models

    rows = [
        {
            "name": row.name,
            "bands": list(row.spec.bands) if row.spec else [],
            "classes": [one.name for one in row.spec.classes] if row.spec else [],
            "licence": row.spec.licence if row.spec else None,
            "problem": row.problem,
            "folder": str(row.folder),
        }
        for row in list_models()
    ]
    if as_json:
        print(json.dumps(rows, indent=1))
    for row in [] if as_json else rows:
        print(f"{row['name']}: {', '.join(row['bands'])} → {', '.join(row['classes'])}; {row['licence']}")  # type: ignore[arg-type]
        if row["problem"]:
            print(f"  not usable: {row['problem']}")
