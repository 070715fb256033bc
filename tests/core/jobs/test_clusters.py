"""The same answers from a local cluster of Ray and a local Spark; the session ``clusters`` has both."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlmr_core.backends import BACKENDS, installed
from xlmr_core.jobs.anywhere import Answering

pytestmark = [
    pytest.mark.skipif(not any(map(installed, BACKENDS)), reason="needs a framework"),
    pytest.mark.filterwarnings("ignore"),  # those of the engines
]
TEXTS = ["Plants need light.", "Ich trinke Kaffee.", "Il pleut.", "Me gusta leer.", "A second longer sentence is here."]
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return np.stack(list(Answering("sentence-embedding", "xlmr-mini").pipeline(TEXTS)))


@pytest.fixture(scope="module")
def cluster() -> Any:
    ray = pytest.importorskip("ray", reason="the session clusters has Ray")
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}})
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()


def test_ray_maps_batches(cluster: Any, expected: np.ndarray) -> None:
    rows = cluster.data.from_items([{"id": number, "text": text} for number, text in enumerate(TEXTS)])
    found = rows.repartition(2).map_batches(Answering("sentence-embedding", "xlmr-mini"), batch_size=2).take_all()
    found.sort(key=lambda row: row["id"])
    np.testing.assert_allclose(np.stack([row["answer"] for row in found]), expected, atol=1e-5)
    assert {row["error"] for row in found} == {""}


def test_ray_answers_shards_that_are_left(cluster: Any, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    answering = Answering("sentence-embedding", "xlmr-mini")
    todo = answering.shards(sorted(tmp_path.glob("*.txt")), tmp_path / "out", ".npy")
    answering.shard(todo[0])
    shard = cluster.remote(lambda places: answering.shard(places))
    done = cluster.get(
        [shard.remote(places) for places in answering.shards(sorted(tmp_path.glob("*.txt")), tmp_path / "out", ".npy")]
    )
    assert [outcome.rows for outcome in done] == [5, 5]
    first, *others = (np.load(output) for _, output in todo)
    assert all(np.allclose(first, other, atol=1e-6) for other in others)


@pytest.fixture(scope="module")
def spark() -> Any:
    pytest.importorskip("pyspark", reason="the session clusters has Spark")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable  # of the workers

    made = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.executorEnv.PYTHONPATH", str(ROOT))
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", 2)
        .getOrCreate()
    )
    made.sparkContext.setLogLevel("ERROR")
    yield made
    made.stop()


def test_spark_maps_tables(spark: Any, expected: np.ndarray) -> None:
    table = spark.createDataFrame(list(enumerate(TEXTS)), "id long, text string").repartition(2)
    answering = Answering("sentence-embedding", "xlmr-mini")
    schema = "id long, text string, answer array<float>, error string"
    found = table.mapInPandas(answering.frames, schema).orderBy("id").collect()
    np.testing.assert_allclose(np.array([row.answer for row in found]), expected, atol=1e-5)


def test_spark_maps_partitions(spark: Any, expected: np.ndarray) -> None:
    rows = spark.createDataFrame(list(enumerate(TEXTS)), "id long, text string").rdd.repartition(2)
    found = sorted(
        rows.mapPartitions(Answering("sentence-embedding", "xlmr-mini").rows).collect(), key=lambda row: row["id"]
    )
    np.testing.assert_allclose(np.array([row["answer"] for row in found]), expected, atol=1e-5)
    assert json.dumps(found[0])


def test_both_are_there() -> None:
    """So that a session that is for them does not pass by skipping."""
    if not any(importlib.util.find_spec(name) for name in ("ray", "pyspark")):
        pytest.skip("neither Ray nor Spark is installed; the session clusters has both")
    assert importlib.util.find_spec("ray") and importlib.util.find_spec("pyspark")
