"""The page of a comparison, as a browser shows it: on a screen, on a phone, on paper."""

import html
import json
import re
import shutil
import subprocess
from xml.etree import ElementTree

import pytest
from comparisons import examples, write_all, write_fit, write_prompting

from lit_fm.compare.methods import compared
from lit_fm.compare.page import page
from lit_fm.compare.runs import read

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
LOOK = """<!doctype html><body style="margin:0"><iframe id="page" style="width:{width}px;height:{height}px;border:0"
srcdoc="{source}"></iframe><script>
document.getElementById("page").onload = event => {{
  const page = event.target.contentDocument, root = page.documentElement, view = page.defaultView, seen = {{}};
  const column = i => [...page.querySelectorAll("table.sortable tbody tr")].map(row => row.cells[i].dataset.value);
  const sort = i => page.querySelectorAll("table.sortable th")[i].ariaSort;
  const press = i => page.querySelectorAll("table.sortable th button")[i].click();
  seen.width = [root.clientWidth, root.scrollWidth];
  seen.scripts = page.querySelectorAll("script").length;
  seen.verdict = page.querySelector(".verdict").getBoundingClientRect().bottom;
  seen.charts = [...page.querySelectorAll("figure svg")].map(svg => svg.getBoundingClientRect().height);
  seen.clipped = [...page.querySelectorAll("figure svg text")].filter(text => {{
    const a = text.getBoundingClientRect(), b = text.closest("svg").getBoundingClientRect();
    return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1 || a.bottom > b.bottom + 1;
  }}).map(text => text.textContent);
  const heights = [...page.querySelectorAll("figure svg text")].map(text => text.getBoundingClientRect().height);
  seen.smallest = Math.min(...heights);
  seen.ink = view.getComputedStyle(page.querySelector("figure svg text")).fill;
  seen.paper = view.getComputedStyle(page.body).backgroundColor;
  seen.first = [sort(1), column(1)];
  press(0); seen.names = [sort(0), column(0)];
  press(0); seen.back = [sort(0), column(0)];
  press(1); seen.best = [sort(1), column(1)];
  const learns = [...page.querySelectorAll("table.sortable th")].findIndex(head => head.innerText.trim() === "memory");
  press(learns); seen.memory = [sort(learns), column(learns)];
  page.querySelector("table.sortable th button").focus(); seen.focus = page.activeElement.textContent;
  document.body.append(Object.assign(document.createElement("pre"), {{id: "seen", textContent: JSON.stringify(seen)}}));
}};
</script>"""


def chromium(path, *options):
    """What it writes: the page as it then is, and its log."""
    fixed = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr", "--v=0"]
    profile = f"--user-data-dir={path.parent / 'profile'}"
    done = subprocess.run(
        [CHROMIUM, *fixed, profile, *options, path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def look(folder, source, width, height, *options):
    """What is seen of the page in a window of that size."""
    (folder / "look.html").write_text(LOOK.format(width=width, height=height, source=html.escape(source, quote=True)))
    dom, log = chromium(folder / "look.html", "--dump-dom", "--virtual-time-budget=5000", *options)
    assert not log
    return json.loads(html.unescape(re.search(r'<pre id="seen">(.*?)</pre>', dom, re.S)[1]))


def rendered(*folders):
    return page(compared(read(list(map(str, folders)))))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return rendered(write_all(tmp_path_factory.mktemp("runs")))


@browser
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_the_page_fits_its_window_sorts_and_can_be_read(tmp_path, source, width, height):
    seen = look(tmp_path, source, width, height)
    assert seen["width"] == [width, width]
    assert seen["verdict"] < height
    assert len(seen["charts"]) == 5
    assert min(seen["charts"]) > 150
    assert seen["clipped"] == []
    assert seen["smallest"] >= 9
    numbers = [float(value) for value in seen["first"][1]]
    assert seen["first"][0] == seen["best"][0] == "descending"
    assert numbers == sorted(numbers, reverse=True) == [float(value) for value in seen["best"][1]]
    assert (seen["names"][0], seen["back"][0]) == ("ascending", "descending")
    assert seen["names"][1] == sorted(seen["names"][1]) == seen["back"][1][::-1]
    known = [float(value) for value in seen["memory"][1] if value]
    assert known == sorted(known)
    assert seen["memory"][1][len(known) :] == [""] * 4  # prompting, of which it is not known, stays below
    assert seen["focus"] == "method"


@browser
def test_the_page_alone_has_nothing_to_complain_of_and_takes_nothing_from_the_network(tmp_path, source):
    path = tmp_path / "index.html"
    path.write_text(source)
    assert chromium(path, "--dump-dom")[1] == []
    path.write_text(source.replace("</main>", '<img src="https://example.com/a.png"><script>alert(1)</script></main>'))
    log = chromium(path, "--dump-dom")[1]
    assert len(log) == 2
    assert all("Content Security Policy" in line for line in log)


@browser
def test_it_is_dark_where_the_reader_wants_it_dark(tmp_path, source):
    light, dark = (
        look(tmp_path, source, 800, 600, f"--blink-settings=preferredColorScheme={scheme}") for scheme in (1, 0)
    )

    def lightness(color):
        return sum(map(int, re.findall(r"\d+", color)[:3])) / 3

    assert lightness(light["paper"]) > 240 > 60 > lightness(light["ink"])
    assert lightness(dark["paper"]) < 40 < 200 < lightness(dark["ink"])


@browser
def test_it_prints(tmp_path, source):
    path = tmp_path / "index.html"
    path.write_text(source)
    chromium(path, f"--print-to-pdf={tmp_path / 'page.pdf'}", "--no-pdf-header-footer")
    pages = len(re.findall(rb"/Type /Page\b(?!s)", (tmp_path / "page.pdf").read_bytes()))
    assert 3 <= pages <= 6


def test_text_from_data_stays_text(tmp_path):
    bad = '<script>alert("x")</script> $x_1$ & {{ 7 * 7 }}'
    rows = [{**row, "prompt": bad, "references": [bad], "answer": bad} for row in examples(40)]
    folders = [write_fit(tmp_path, name, 0, share, n, 9, -0.1, rows=rows) for n, (name, share) in
               enumerate({"<b>lora": 0.5, "full": 0.9}.items(), 5)]  # fmt: skip
    made = rendered(f"{bad}={folders[0]}", folders[1])
    assert made.count("<script") == 1
    assert "&lt;script&gt;alert(" in made
    assert "{{ 7 * 7 }}" in made
    assert "<b>" not in made
    for svg in re.findall(r"<svg.*?</svg>", made, re.S):
        texts = [node.text for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text")]
        assert any(bad in (text or "") for text in texts)


def test_no_two_things_have_the_same_name(source):
    ids = re.findall(r'\bid="([^"]+)"', source)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', source))
    assert used <= set(ids)


def test_the_page_holds_all_that_it_promises(source):
    text = html.unescape(re.sub(r"<[^>]+>", " ", source))
    for heading in ("All methods", "Quality against learnable parameters", "Quality against time", "Training loss",
                    "Examples in the prompt, with fine-tuned methods", "Forgetting", "Answers side by side",
                    "What the soft prompt of prompt is nearest to", "Where the runs came from"):  # fmt: skip
        assert heading in text
    assert "python -m lit_fm fit --config dora.yaml --seed_everything 1" in text
    assert "max_steps: 400" in text
    assert (
        source.count('class="right"') == 6
    )  # in each of the answers that are shown, those who were right stand together
    assert 'aria-label="exact match of each method against its learnable parameters"' in source
    assert re.search(r"<title>lora: 96\.0.%, \[|<title>lora: 96\.0.% \[\d", source)


def test_of_several_backbones_quality_is_drawn_against_their_size(tmp_path, lit):
    for backbone, share in (("tiny-clm", 0.4), ("smollm2-135m", 0.6), ("gpt2-xl", 0.9)):
        for name, less in (("full", 0), ("prompt", 0.3)):
            write_fit(tmp_path / "runs" / backbone, name, 0, share - less, 100, 9, backbone=backbone)
        write_prompting(tmp_path / "runs" / backbone, {0: 0.1, 4: 0.2}, backbone=backbone)
    done = lit("compare", tmp_path / "runs", "--out", tmp_path / "page", "--latency", "false")
    assert done.code == 0, done.err
    made = (tmp_path / "page/index.html").read_text()
    [svg] = re.findall(r'<figure id="chart-scale">.*?(<svg.*?</svg>)', made, re.S)
    texts = [node.text for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text")]
    assert {"1.48M", "135M", "1.56B", "full", "prompt", "zero-shot", "4-shot"} <= set(texts)
    assert "full on gpt2-xl" in made


def test_the_verb_writes_the_same_bytes_again_and_keeps_what_differed(lit, tmp_path):
    runs, out = write_all(tmp_path / "runs", seeds=1), tmp_path / "page"
    done = lit("compare", runs, "--out", out)
    assert done.code == 0, done.err
    assert f"The page: {out}/index.html" in done.out
    assert "adapter: 97.0" in done.out
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert sorted(before) == ["index.html", "table.csv", "table.md"]
    assert lit("compare", runs, "--out", out).code == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    shutil.rmtree(runs / "full")
    assert lit("compare", runs, "--out", out).code == 0
    assert (out / "index-old.html").read_bytes() == before["index.html"] != (out / "index.html").read_bytes()
