"""What a run takes of the machine's energy."""

import pytest

from lit_fm.energy import SHARED, Meter


@pytest.fixture
def counters(tmp_path):
    """Two processors' counters, and a part of one, which is in its processor's."""

    def write(**microjoules):
        for name, value in microjoules.items():
            folder = tmp_path / name.replace("_", ":").replace("rapl", "intel-rapl")
            folder.mkdir(exist_ok=True)
            (folder / "energy_uj").write_text(f"{value}\n")
            (folder / "max_energy_range_uj").write_text("1000000000\n")

    write(rapl_0=5_000_000, rapl_1=1_000_000, rapl_0_0=900_000_000)
    return tmp_path, write


def test_the_counters_of_all_processors_are_summed(counters):
    folder, write = counters
    meter = Meter(before=10.0, powercap=folder)
    write(rapl_0=7_000_000, rapl_1=1_500_000, rapl_0_0=999_000_000)
    assert meter.joules() == pytest.approx(10 + 2 + 0.5)


def test_a_counter_that_began_anew_is_understood(counters):
    folder, write = counters
    meter = Meter(powercap=folder)
    write(rapl_0=4_000_000)
    assert meter.joules() == pytest.approx(999)


def test_nothing_is_told_where_nothing_is_measured_or_others_are_at_work(counters, tmp_path, monkeypatch):
    assert Meter(powercap=tmp_path / "none").joules() is None
    monkeypatch.setenv(SHARED, "yes")
    assert Meter(powercap=counters[0]).joules() is None
