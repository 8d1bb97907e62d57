"""One fit a year on a cluster, here one of two processes on this machine: ``uv run python docs/on_a_cluster.py``.

``Client("tcp://scheduler:8786")`` is a cluster that others started; ``dask_jobqueue`` starts one under SLURM or PBS.
"""

from distributed import Client

import hbm_zoo as hz

if __name__ == "__main__":
    hospitals = hz.load_data("three_hospitals")
    years = {str(year): hospitals.assign(observed=hospitals["observed"] + year % 3) for year in range(2015, 2025)}
    with Client(n_workers=2, threads_per_worker=1) as client:
        fits = hz.fit_many("hospital_readmission", years, random_seed=1, executor=client.get_executor())
    print(hz.units(fits).round(2))
