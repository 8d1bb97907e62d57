"""Make the picture on the README's first screen: ``uv run python docs/make_picture.py``."""

from pathlib import Path

import hbm_zoo as hz

frame = hz.load_data("heart_transplants")
fits = hz.fit_poolings("hospital_readmission", frame, random_seed=1, progressbar=False)
figure = hz.plot_shrinkage(fits)
figure.savefig(Path(__file__).with_name("shrinkage.png"), dpi=120)
