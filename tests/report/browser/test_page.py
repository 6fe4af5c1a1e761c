"""Pages in a real browser: drawn, quiet, sortable, readable on a phone, on paper and without seeing them."""

from itertools import pairwise
from pathlib import Path

import axe_playwright_python
import pytest

from slimcv.report.html import render_html
from slimcv.report.reading import read

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
HOSTILE = "<script>alert(1)</script>"
KINDS = ("run", "several", "ladder", "bench", "profile", "training", "difference")
PAGES = (*KINDS, "real")

MARKS = """chart => {
  const box = chart.getBoundingClientRect();
  const shapes = [...chart.querySelectorAll("rect, circle, path, line")];
  const marks = shapes.map(mark => mark.getBoundingClientRect());
  const seen = marks.filter(mark => mark.width + mark.height > 1);
  const outside = seen.filter(mark => mark.left < box.left - 12 || mark.right > box.right + 12);
  return {height: box.height, width: box.width, seen: seen.length, outside: outside.length};
}"""

WIDE = """() => [...document.querySelectorAll("table, pre, figure, dl, ul")]
  .filter(part => part.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(part => (part.caption || part).textContent.trim().slice(0, 60))"""


@pytest.fixture
def page_of(make_run, results, tmp_path, request):
    """A function that writes the page of each kind of result; `real` is the one that a run has left."""

    def written(kind):
        if kind == "real":
            return request.getfixturevalue("real_run") / "report.html"
        if kind in ("run", "several"):
            found = [read(make_run(name)) for name in ("run", "other")[: 1 if kind == "run" else 2]]
        else:
            found = [read(results(kind))]
        path = tmp_path / "page.html"
        path.write_text(render_html(found), "utf-8")
        return path

    return written


@pytest.mark.parametrize("kind", PAGES)
def test_a_page_is_quiet_asks_nothing_and_draws_every_chart(show, page_of, kind):
    path = page_of(kind)
    page = show(path)
    assert page.said == []
    assert [url for url in page.asked if not url.startswith("data:")] == [path.as_uri()]
    charts = page.locator(".drawing").all()
    assert charts
    for chart in charts:
        drawn = chart.evaluate(MARKS)
        assert drawn["height"] > 40
        assert drawn["seen"] > 2, drawn
        assert drawn["outside"] == 0, drawn


@pytest.mark.parametrize("width", [320, 360, 768])
@pytest.mark.parametrize("kind", PAGES)
def test_nothing_flows_over_on_a_narrow_screen(unfolded, page_of, kind, width):
    page = unfolded(page_of(kind), width=width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for chart in page.locator(".drawing").all():
        assert chart.evaluate(MARKS)["outside"] == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", PAGES)
def test_axe_finds_nothing_serious(unfolded, page_of, kind, scheme):
    page = unfolded(page_of(kind), scheme=scheme, width=1280 if scheme == "light" else 360)
    page.evaluate(AXE.read_text("utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    serious = [
        (one["id"], one["nodes"][0]["html"][:200])
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []
    assert found["passes"], "axe has looked at the page"


@pytest.mark.parametrize("kind", PAGES)
def test_every_chart_has_a_name_a_description_and_a_table_with_a_caption(show, page_of, kind):
    page = show(page_of(kind))
    charts = page.locator("figure.chart").all()
    assert charts
    for chart in charts:
        drawing = chart.locator("[role=img]")
        assert drawing.count() == 1
        assert drawing.locator("svg").count() >= 1
        for attribute in ("aria-labelledby", "aria-describedby"):
            (name,) = (drawing.get_attribute(attribute) or "").split()
            assert page.locator(f"[id='{name}']").text_content().strip()
        assert chart.locator("svg:not([role=img] svg):not([aria-hidden=true])").count() == 0
        assert chart.locator("table").count() == 1
        caption = chart.locator("table > caption")
        assert caption.text_content().strip()
        assert chart.locator("table tbody tr").count() >= 1
        assert (
            chart.locator("table thead th").count()
            == chart.locator("table tbody tr").first.locator("th, td").count()
        )


def test_light_and_dark_are_those_of_the_reader(show, page_of):
    path = page_of("run")
    ground = "getComputedStyle(document.body).backgroundColor"
    light, dark = (show(path, scheme=scheme).evaluate(ground) for scheme in ("light", "dark"))
    assert light == "rgb(255, 255, 255)"
    assert max(map(int, dark.removeprefix("rgb(").removesuffix(")").split(","))) < 60


def test_on_paper_every_colour_is_that_of_the_light_page(show, page_of):
    path = page_of("run")
    read = """() => Object.fromEntries([...document.styleSheets[0].cssRules[0].style]
      .filter(name => name.startsWith("--part") || name === "--rest")
      .map(name => [name, getComputedStyle(document.documentElement).getPropertyValue(name).trim()]))"""
    light = show(path).evaluate(read)
    dark = show(path, scheme="dark")
    assert len(light) == 6
    assert dark.evaluate(read) != light
    dark.emulate_media(media="print", color_scheme="dark")
    assert dark.evaluate(read) == light


def column(page, caption, heading):
    """The texts of a column of a table, without the button's arrow."""
    return page.evaluate(
        """([caption, heading]) => {
          const tables = [...document.querySelectorAll("table")];
          const table = tables.find(one => one.caption.textContent === caption);
          const at = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent === heading);
          return [...table.tBodies[0].rows].map(row => row.cells[at].textContent);
        }""",
        [caption, heading],
    )


def test_tables_are_sorted_by_mouse_and_by_keyboard(unfolded, page_of):
    page = unfolded(page_of("run"))
    caption = "Right answers in each class"
    table = page.locator("table", has=page.locator("caption", has_text=caption))
    change = table.locator("th", has_text="change")
    assert change.get_attribute("aria-sort") is None
    change.get_by_role("button").click()
    assert change.get_attribute("aria-sort") == "descending"
    texts = column(page, caption, "change")
    values = [float(text.replace("−", "-").replace("±", "")) for text in texts]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) > 1
    name = table.locator("thead th", has_text="class")
    name.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert name.get_attribute("aria-sort") == "ascending"
    assert change.get_attribute("aria-sort") is None
    assert column(page, caption, "class")[0] == '"><img src=x onerror=alert(2)>'
    page.keyboard.press("Enter")
    assert name.get_attribute("aria-sort") == "descending"


def test_what_was_not_measured_is_sorted_to_the_end_either_way(unfolded, page_of):
    page = unfolded(page_of("run"))
    heading = page.locator("#steps th", has_text="latency p50").first
    caption = page.locator("#steps caption").first.text_content()
    for _ in range(2):
        heading.get_by_role("button").click()
        assert column(page, caption, "latency p50")[-1] == "–"


def test_the_tables_unfold_by_keyboard(show, page_of):
    page = show(page_of("run"))
    summary = page.locator("summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.get_attribute("open") is not None


@pytest.mark.parametrize("kind", PAGES)
def test_on_paper_no_table_is_cut_and_none_is_folded(show, page_of, kind):
    page = show(page_of(kind), width=688)  # A4 without its margins, at 96 dots an inch.
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(WIDE) == []
    assert all(table.bounding_box()["height"] > 20 for table in page.locator("table").all())
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
    assert page.pdf(format="A4").startswith(b"%PDF")


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_text_and_nothing_of_them_runs(unfolded, page_of, kind):
    page = unfolded(page_of(kind))
    assert page.said == []
    assert page.locator("script").count() == 1
    assert page.locator("img[src='x']").count() == 0
    assert HOSTILE in page.locator("body").inner_text()


def test_the_policy_stops_a_script_that_got_in(show, page_of):
    path = page_of("run")
    path.write_text(
        path.read_text("utf-8").replace("</main>", "<script>document.title = 'x'</script></main>")
    )
    page = show(path)
    assert page.title() != "x"
    assert any("Content Security Policy" in line for line in page.said)


def test_the_headings_make_an_outline(show, page_of):
    page = show(page_of("run"))
    levels = page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3')].map(each => Number(each.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    for link in page.locator("nav a").all():
        assert page.locator(link.get_attribute("href")).count() == 1
