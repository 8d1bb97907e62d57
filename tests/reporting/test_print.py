"""A report as it is printed and clicked, by a browser."""

import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

import hbm_zoo as hz

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium here: the report's print and script are not looked at"
)
A4, WIDTH = (595, 842), 721  # points; pixels between the margins, and the padding of a screen
#: What is too wide for a sheet; then the order of a column of numbers after a click on its head, and after another.
PROBE = """<script>
const wide = [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1);
const table = [...document.querySelectorAll("table")].find(t => t.rows.length > 30), head = table.tHead.rows[0].cells;
const column = () => [...table.tBodies[0].rows].map(row => parseFloat(row.cells[2].textContent));
head[2].click(); const up = column(); head[2].click();
const named = wide.map(e => e.tagName + ": " + e.textContent.slice(0, 60));
document.title = JSON.stringify({wide: named, up, down: column()});
</script></body>"""


def browser(*arguments):
    """What the browser prints."""
    always = ["--headless", "--no-sandbox", "--disable-gpu", "--run-all-compositor-stages-before-draw"]
    done = subprocess.run([BROWSER, *always, *arguments], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    rng = np.random.default_rng(1)
    expected = np.exp(rng.normal(3, 1, 138)).round(1)
    names = ["St. Mary's & the Holy Cross of Upper and Lower Silesia", "Øst <Regional>", *map(str, range(136))]
    frame = pd.DataFrame({"hospital": names, "observed": rng.poisson(1.2 * expected), "expected": expected})
    same = {"draws": 100, "random_seed": 1, "progressbar": False}
    fits = {pooling: hz.fit("hospital_readmission", frame, pooling, **same) for pooling in ("none", "partial")}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LEAST", "MOST_A_CHECK"):  # what is said of checks is looked at, not whether it is right
            patch.setattr(f"hbm_zoo.diagnostics.replicas.{name}", 2)
        return hz.report(fits, tmp_path_factory.mktemp("print") / "report", threshold=1.5)


@pytest.mark.long
def test_no_column_is_cut_and_a_click_sorts(folder):
    page = (folder / "report.html").read_text(encoding="utf-8").replace("</body>", PROBE)
    (folder.parent / "probe.html").write_text(page, encoding="utf-8")
    dom = browser(f"--window-size={WIDTH},1000", "--dump-dom", f"file://{folder.parent / 'probe.html'}")
    found = json.loads(re.search(r"<title>(.*?)</title>", dom, re.DOTALL)[1].replace("&lt;", "<").replace("&amp;", "&"))
    assert found["wide"] == []
    assert len(found["up"]) == 40  # the row that says how many are left out goes
    assert found["up"] == sorted(found["up"])
    assert found["down"] == found["up"][::-1]
    assert found["up"][0] < found["up"][-1]


@pytest.mark.long
def test_sheets_are_a4_and_few(folder):
    browser(
        "--no-pdf-header-footer", f"--print-to-pdf={folder.parent / 'report.pdf'}", f"file://{folder / 'report.html'}"
    )
    pdf = (folder.parent / "report.pdf").read_bytes()
    boxes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf)
    assert 5 <= len(boxes) <= 14
    assert {(round(float(w)), round(float(h))) for w, h in boxes} == {A4}
