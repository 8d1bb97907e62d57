"""What is written of checks and comparisons is looked at here, not what they find: few replicates and halves do."""

import pytest

from hbm_zoo.diagnostics import cross_validation, replicas


@pytest.fixture(autouse=True, scope="module")
def few():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replicas, "LEAST", 19)
        patch.setattr(replicas, "MOST_A_CHECK", 5)
        patch.setattr(cross_validation, "SPLITS", 4)
        yield
