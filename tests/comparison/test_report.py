"""What a comparison leaves to read."""

import json

from markupsafe import Markup

from boost_trl.comparison.report import Report
from boost_trl.pictures import figure


def test_the_page_has_its_pictures_inside(tmp_path):
    with figure(tmp_path / "scores.png"):
        pass
    rows = [{"label": "<b>BOOST</b>", "score": 1.5}]
    columns = {"method": lambda row: row["label"], "score": lambda row: f"{row['score']:.2f}"}
    report = Report(
        "Toy",
        rows,
        [],
        columns,
        ["A | B."],
        {"a": 1},
        "Note.",
        verdict="**BOOST** wins.",
        sections=["![Scores](scores.png)", Markup("<div class='game'>hello</div>")],
        about={"BOOST": "learns weights"},
    )
    report.write(tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == rows
    page = (tmp_path / "report.html").read_text()
    assert "&lt;b&gt;BOOST&lt;/b&gt;" in page and "<td" in page and "1.50" in page and "A | B." in page
    assert page.count('src="data:image/png;base64,') == 1 and "scores.png" not in page
    assert "<strong>BOOST</strong> wins." in page and "<strong>BOOST</strong>: learns weights." in page
    text = (tmp_path / "report.md").read_text()
    assert "![Scores](scores.png)" in text
    # HTML is for the page alone, and the verdict is read first.
    assert "<div class='game'>hello</div>" in page and "game" not in text
    assert text.index("wins") < text.index("scores.png") < text.index("| method") < text.index("A | B.")
