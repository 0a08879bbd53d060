"""`noiselaw laws reproduce` prints every section, as tables or JSON, and writes the figures."""

import json
import re

import pytest

from noiselaw.cli import reproduce as command
from noiselaw.cli.main import main
from noiselaw.laws.published import isoflop_laws
from noiselaw.laws.reproduce import reproduce as rederive
from noiselaw.report.paperfigures import paper_figures


@pytest.fixture(scope="module")
def found():
    return rederive()


@pytest.fixture
def run(found, monkeypatch, capsys):
    """The command line, with fits made once; returns what it printed."""
    monkeypatch.setattr(command, "rederive", lambda: found)

    def call(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["noiselaw", "laws", "reproduce", *arguments])
        main()
        return capsys.readouterr().out

    return call


def test_tables_show_published_ours_and_difference(run):
    text = run("--no-figures")
    exponents = re.findall(
        r"^(L\*|D\*|M\*|P\*) +exponent +(\S+) +(-?0\.\d{5}) +(-?0\.\d{6}) +([+-]\S+) +(rounding|points)$",
        text, flags=re.MULTILINE,
    )  # fmt: skip
    printed = {f"{law.exponent:.5f}" for law in isoflop_laws()}
    assert {row[2] for row in exponents} >= printed
    for _, _, published, ours, difference, _ in exponents:
        assert float(ours) - float(published) == pytest.approx(float(difference), abs=6e-7)
    assert re.search(
        r"D\* +uniform +0\.3932 to 0\.4123 +0\.39\d\d to 0\.43\d\d +0\.3932 to 0\.4312 +\w+, cut short", text
    )
    assert re.search(r"unif-10b +without cooldown +1\.02×10²² +177× +2\.220 .* 2\.275 +−2\.41 %", text)
    assert re.search(r"final \(measured factor 1\.0276\) .* 2\.214 +−2\.12 %", text)
    assert re.search(r"L\* +B +balanced +1520 +1516\.\d", text)
    assert re.search(r"P\* +exponent +masked +0\.61488 +0\.61491\d +\+3\.1e-05 +not by rounding", text)
    assert "data unpublished: losses by learning rate" in text
    assert "high-uniform 6 of 36" in text
    assert max(map(len, text.splitlines())) <= command.WIDTH
    assert "…" not in text


def test_json_holds_everything(run, found, tmp_path):
    printed = json.loads(run("--json", "--no-figures"))
    assert printed == found.record() | {"figures": []}
    assert not list(tmp_path.iterdir())


def test_figures_are_written_where_told(run, found, tmp_path, monkeypatch):
    drawings = paper_figures(found)[1:4]  # the others take seconds to print and hold the same panels
    monkeypatch.setattr("noiselaw.report.paperfigures.paper_figures", lambda found: drawings)
    folder = tmp_path / "new" / "figures"
    figures = json.loads(run("--json", "--out", str(folder)))["figures"]
    names = ("laws", "exponents", "held_out")
    assert figures == [str(folder / f"{name}.{kind}") for name in names for kind in ("png", "svg")]
    assert all((folder / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in names)


def test_figures_go_to_a_folder_of_their_own_by_default(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("noiselaw.report.paperfigures.paper_figures", lambda found: ())
    run()
    assert [path.name for path in tmp_path.iterdir()] == ["reproduction"]
