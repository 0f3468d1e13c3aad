"""Ablations: every variant trains, and lacks what its title says."""

from __future__ import annotations

import pytest

from napari_focus_fusion.training.data import make_pool
from studies.ablations import VARIANTS, ablate, as_markdown


@pytest.fixture(scope="module")
def rows():
    pool = make_pool(range(2), 3, 96)
    validation = [pool.draw(0, stacks=1, crop=64, seed=0)]
    return {v.title: ablate(v, pool, validation, 2, 0) for v in VARIANTS}


def test_every_variant_learns_something_else(rows):
    errors = {row["trained"] for row in rows.values()}
    assert len(errors) == len(VARIANTS)
    assert all(row["trained"] != row["untrained"] for row in rows.values())


def test_a_variant_is_smaller_than_the_whole(rows):
    for variant in VARIANTS:
        whole = "FAPN, whole" if variant.stage is VARIANTS[0].stage else "SRN, whole"
        same = not variant.changes or "before" in variant.title
        fewer = rows[variant.title]["parameters"] < rows[whole]["parameters"]
        assert fewer != same


def test_the_table_is_in_the_order_of_the_variants(rows):
    lines = as_markdown(list(reversed(rows.values()))).splitlines()[2:]
    titles = [line.split("|")[1].strip() for line in lines]
    assert titles == [variant.title for variant in VARIANTS]
