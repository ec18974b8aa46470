"""Write the schemas, and the ids of the vectors' requests."""

from __future__ import annotations

import json
from typing import Any

from tasks.kinds import KINDS
from tasks.messages import validated
from tasks.schemas import FOLDER, schemas


def _write(name: str, value: Any) -> None:
    (FOLDER / f"{name}.json").write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for schema, content in schemas().items():
        _write(schema, content)
    models = {kind.task: kind.request for kind in KINDS}
    vectors = json.loads((FOLDER / "vectors.json").read_text(encoding="utf-8"))
    for vector in vectors:
        request = vector["request"]
        vector["job_id"] = validated(models[request["task"]], request).job_id
    _write("vectors", vectors)
