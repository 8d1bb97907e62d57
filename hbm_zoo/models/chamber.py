"""Rats in a closed chamber with carbon tetrachloride: what `reaction_networks` shows a right-hand side of one's own by.

A rat breathes the chamber's air, its blood carries the vapour into four tissues and back, and its liver destroys it
(the physiologically based model of Evans et al. 1994, Toxicol Appl Pharmacol 128:36-44). Amounts are shares of what was
in the air at the beginning. With the rate Q of breathing, which is the heart's output, too [L/h], the shares x_i in
tissues of volumes v_i [L], through which shares f_i of the blood flow and whose partition coefficients are P_i:

    c_i = x_i P_b / (v_i P_i)                                    leaving the tissue in blood [1/L]
    c_a = (sum f_i c_i + x_air / v_air) / (1 + 1 / P_b)          arriving in blood [1/L]
    dx_i/dt = Q f_i (c_a - c_i),   of the liver less   V c / (K + D c)
    dx_air/dt = Q (c_a / P_b - x_air / v_air) - k_l x_air

D is the dose [mg], V the most that the liver destroys [mg/h], K the concentration at which it is half of that [mg/L].
Q and V are a rat's own. The other numbers are those of a rat of 182 g, and are taken for known and the same in all: the
article's, as the R package deSolve has them (`ccl4model`). So is K, of the enzyme: no rat alone tells it from V.
"""

import numpy as np
import pandas as pd

from hbm_zoo.group_level.equations import equations

SPECIES = ("air", "muscle", "viscera", "fat", "liver", "dose")
#: Liters of a rat, and of the air around it; the mg that 1 ppm of 153.8 g/mol there are, at 24.45 L/mol.
RAT = 0.182
AIR = 3.8 - RAT
MG = AIR * 153.8 / 24450
#: Of muscle, viscera, fat and liver volumes [L], shares of blood flow, and partition coefficients to air; of blood.
VOLUME = RAT * np.array([0.74, 0.05, 0.08, 0.04])
FLOW = np.array([0.32, 0.48, 0.05, 0.15])
PARTITION, BLOOD = np.array([13.3, 16.17, 281.48, 16.17]), 5.487
HELD = VOLUME * PARTITION / BLOOD
#: What an empty chamber loses [1/h]; of the enzyme [mg/L], calibrated by the model to these data.
LOSS, K = 0.02, 0.4027
#: What was in the air at the beginning [ppm], by what was meant to be: calibrated there, by the model, to these data.
DOSES = {1000: 951.46, 250: 245.15, 100: 90.197, 25: 26.496}


def breathing(t, state, rates):
    """How fast shares of the dose change [species, point]; the dose [ppm] does not."""
    air, *tissues, dose = state
    Q, V = rates
    leaving = np.stack(tissues) / HELD[:, None]
    arriving = (FLOW @ leaving + air / AIR) / (1 + 1 / BLOOD)
    muscle, viscera, fat, liver = Q * FLOW[:, None] * (arriving - leaving)
    destroyed = V * leaving[-1] / (K + MG * dose * leaving[-1])
    return Q * (arriving / BLOOD - air / AIR) - LOSS * air, muscle, viscera, fat, liver - destroyed, 0 * dose


CHAMBER = equations(breathing, species=SPECIES, rates={"Q": 4.0, "V": 0.04})
#: Three rats a dose.
RATS = pd.DataFrame({"module": [*"ABCDEFGHIJKL"], "species": "dose", "amount": np.repeat([*DOSES.values()], 3)})
