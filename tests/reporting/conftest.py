"""What is written of checks is looked at here, not what they find: few replicates do."""

import pytest

from hbm_zoo.diagnostics import replicas


@pytest.fixture(autouse=True, scope="module")
def few_replicates():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replicas, "LEAST", 19)
        patch.setattr(replicas, "MOST_A_CHECK", 5)
        yield
